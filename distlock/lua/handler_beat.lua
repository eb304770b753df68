-- Say that a handler is alive; one that was given up for dead stays so.
-- KEYS: handlers
-- ARGV: handler ttl(ms)
-- RETURNS: 1 alive, 0 given up for dead
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
return 1
