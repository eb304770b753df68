-- End a flight: keep its value while the right is still the caller's, and wake all who wait for it.
-- They get the value itself, or are told by an empty one to look again.
-- USES: _flight _keep _wake
-- KEYS: value flight fresh waiters
-- ARGV: right value expire(ms, 0 to keep nothing) stale(ms)
-- RETURNS: 1 the right was the caller's, 0 it has gone on: nothing is kept
local _, right = flight()
local waiters, mine = redis.call('SMEMBERS', KEYS[4]), right == ARGV[1]
if mine then
  ended(right)
  if ARGV[3] ~= '0' then keep(ARGV[2], ARGV[3], ARGV[4]) end
end
wake(waiters, ARGV[1], #ARGV[2] > 65536 and '' or ARGV[2])
return (mine or right == '-' .. ARGV[1]) and 1 or 0
