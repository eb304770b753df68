-- What has ended is remembered for a minute, so that a late copy of a request finds it and does nothing.
local function ended(id)
  redis.call('SET', KEYS[2], '-' .. id .. ' 0', 'PX', 60000)
end
-- Keep a value for `expire` ms, and then as a stale one for `stale` ms more.
local function keep(value, expire, stale)
  if stale == '0' then redis.call('DEL', KEYS[3]) else redis.call('SET', KEYS[3], 1, 'PX', expire) end
  redis.call('SET', KEYS[1], value, 'PX', expire + stale)
end
