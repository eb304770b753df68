-- The source ended early: the job has as many messages as were generated.
-- KEYS: lease job sequence
-- ARGV: owner token sequence
-- RETURNS: 1 shrunk, 0 the lease or the sequence has gone on
local held = redis.call('HMGET', KEYS[1], 'owner', 'token')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return 0 end
if (redis.call('GET', KEYS[3]) or '0') ~= ARGV[3] then return 0 end
if redis.call('HLEN', KEYS[2]) == 0 then return 0 end
redis.call('HSET', KEYS[2], 'messages', ARGV[3])
return 1
