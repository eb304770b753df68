-- Take the right to compute if nothing has changed since the caller looked; else say what is there now.
-- While another one computes, wait for that flight; the first who waits watches over the computer.
-- `force` takes the right of another one: 1 that is dead, whose waiters look again; 2 to refresh.
-- USES: _flight _wake
-- KEYS: value flight fresh waiters watch
-- ARGV: right ttl(ms) connections seen force(0|1|2) address
-- RETURNS: {0, value, flight, fresh} changed | {1} taken | {2, ms left, 1 to watch} wait
local value, fresh, watched = unpack(redis.call('MGET', KEYS[1], KEYS[3], KEYS[5]))
local words, right, ttl = flight()
if right == ARGV[1] then return {1} end
if words ~= ARGV[4] then return {0, value, words, fresh} end
local alive = right and string.sub(right, 1, 1) ~= '-'
if alive and ARGV[5] == '0' then
  local left = redis.call('PTTL', KEYS[2])
  redis.call('SADD', KEYS[4], ARGV[6] .. ' ' .. right)
  redis.call('PEXPIRE', KEYS[4], 3 * ttl)
  if left > ttl then redis.call('PEXPIRE', KEYS[2], ttl) end -- the clock was set back
  local mine = right .. ' ' .. ARGV[1]
  if watched and watched ~= mine and string.match(watched, '^%S+') == right then
    return {2, math.min(left, ttl), 0}
  end
  redis.call('SET', KEYS[5], mine, 'PX', 2 * ttl) -- it is back before that, when the right would end
  return {2, math.min(left, ttl), 1}
end
local waiters = ARGV[5] == '1' and redis.call('SMEMBERS', KEYS[4]) or {}
redis.call('SET', KEYS[2], table.concat({ARGV[1], ARGV[2], ARGV[3]}, ' '), 'PX', ARGV[2])
wake(waiters, right, '')
return {1}
