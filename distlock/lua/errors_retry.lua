-- Put errors back in the queue with their attempts anew; an order number never comes again.
-- USES: _ring
-- KEYS: errors queue bell
-- ARGV: order [order ...]
-- RETURNS: errors put back
local messages = 0
redis.call('LLEN', KEYS[2]); redis.call('ZCARD', KEYS[3])
for _, order in ipairs(ARGV) do
  local id = redis.call('HGET', KEYS[1], '#' .. order)
  if id then
    local record = redis.call('HGET', KEYS[1], id)
    local body = string.match(record, '^%d+\n%d+\n[^\n]*\n%d+:%d+:(.*)$')
    redis.call('RPUSH', KEYS[2], id .. ':1:' .. body)
    redis.call('HDEL', KEYS[1], id, '#' .. order)
    messages = messages + 1
  end
end
if messages > 0 then ring(KEYS[3]) end
return messages
