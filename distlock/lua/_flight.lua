-- A flight: `right last ttl connection connection`. While it is under way `right` is the random id of
-- the right to compute; `-right` says that it has ended. `last` is the id of the last set or delete.
local function flight()
  local words = redis.call('MGET', KEYS[2])[1] or ''
  local right, last, ttl = string.match(words, '^(%S+) (%S+) (%d+)')
  return words, right, last or '-', tonumber(ttl)
end
