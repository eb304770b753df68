-- Remove errors that were written out and remember their ids; an order number never comes again.
-- KEYS: errors taken
-- ARGV: order [order ...]
-- RETURNS: errors removed
local removed = 0
for _, order in ipairs(ARGV) do
  local id = redis.call('HGET', KEYS[1], '#' .. order)
  if id then
    redis.call('SADD', KEYS[2], id)
    redis.call('HDEL', KEYS[1], id, '#' .. order)
    removed = removed + 1
  end
end
return removed
