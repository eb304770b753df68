-- Add what a process has counted to the cache's counters, once.
-- KEYS: counters counted
-- ARGV: number, then name and difference in turn
-- RETURNS: 1 added, 0 it was added before
if tonumber(redis.call('GET', KEYS[2]) or 0) >= tonumber(ARGV[1]) then return 0 end
for i = 2, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('SET', KEYS[2], ARGV[1], 'PX', 3600000)
return 1
