-- A flight: `right ttl connection connection server`. While it is under way `right` is the random id
-- of the right to compute; `-right`, or `-id` of a set or delete, says that it has ended.
local function flight()
  local words = redis.call('MGET', KEYS[2])[1] or ''
  local right, ttl = string.match(words, '^(%S+) (%d+)')
  return words, right, tonumber(ttl)
end
