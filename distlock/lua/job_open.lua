-- Write the job's record, once, by the lease's owner.
-- A sequence without a record means that a reset was cut short: nothing begins on what it left.
-- KEYS: job lease sequence stats
-- ARGV: owner token field value [field value ...]
-- RETURNS: 1 written, 0 there already, -1 the lease has gone on, -2 a sequence without a record
local held = redis.call('HMGET', KEYS[2], 'owner', 'token')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return -1 end
if redis.call('HLEN', KEYS[1]) > 0 then return 0 end
if redis.call('GET', KEYS[3]) or redis.call('HLEN', KEYS[4]) > 0 then return -2 end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
return 1
