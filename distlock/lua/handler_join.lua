-- Enter a handler among the living, with an empty hand, if no other has joined since the caller looked.
-- A copy of this request that arrives later finds a newer count and changes nothing.
-- KEYS: job temp handlers stats
-- ARGV: handler job(id) next ttl(ms) seen
-- RETURNS: {1 joined | 0 look again | -1 the job is gone | -2 a hand is there, its name or '', joins}
local joins = tonumber(redis.call('HGET', KEYS[4], 'joins') or '0')
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[2] then return {-1, '', joins} end
if redis.call('HLEN', KEYS[2]) > 1 then return {-2, '', joins} end
redis.call('ZCARD', KEYS[3])
if ARGV[5] ~= tostring(joins) then return {0, '', joins} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local name = string.format('%s-%.0f/0', ARGV[3], time[1] * 1000000 + time[2])
redis.call('HSET', KEYS[2], '#', name)
redis.call('ZADD', KEYS[3], now + ARGV[4], ARGV[1])
return {1, name, redis.call('HINCRBY', KEYS[4], 'joins', 1)}
