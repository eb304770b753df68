-- Begin a term as generator: check that the job is still the same, count a term with work to do once
-- and note the sequence that it begins with: a failover may have set that back.
-- KEYS: job lease sequence stats
-- ARGV: owner token job(id)
-- RETURNS: {1 leads | 0 the lease has gone on | -1 the job is gone, sequence, messages}
local held = redis.call('HMGET', KEYS[2], 'owner', 'token')
local job = redis.call('HMGET', KEYS[1], 'id', 'messages')
local sequence = tonumber(redis.call('GET', KEYS[3]) or '0')
if job[1] ~= ARGV[3] then return {-1, 0, 0} end
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return {0, sequence, 0} end
if sequence < tonumber(job[2]) and redis.call('HGET', KEYS[4], 'term') ~= ARGV[2] then
  redis.call('HSET', KEYS[4], 'term', ARGV[2], 'began', sequence)
  redis.call('HINCRBY', KEYS[4], 'terms', 1)
end
return {1, sequence, tonumber(job[2])}
