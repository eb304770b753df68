-- Put errors back in the queue with their attempts anew: at most 1,000 or, after the first, 1 MB.
-- An order number never comes again, so a copy of this request that arrives later finds nothing.
-- The last request is answered as before when it arrives again.
-- USES: _ring
-- KEYS: errors queue bell stats
-- ARGV: first(order) last(order) request(id)
-- RETURNS: {next order, errors put back}
local request, following, done = string.match(redis.call('HGET', KEYS[4], 'retry') or '', '(%S+) (%d+) (%d+)')
if request == ARGV[3] then return {tonumber(following), tonumber(done)} end
local order, last, bytes, count = tonumber(ARGV[1]), tonumber(ARGV[2]), 0, 0
redis.call('LLEN', KEYS[2]); redis.call('ZCARD', KEYS[3])
local stop = math.min(last, order + 999)
while order <= stop and bytes < 1000000 do
  local id = redis.call('HGET', KEYS[1], '#' .. order)
  if id then
    local record = redis.call('HGET', KEYS[1], id)
    local body = string.match(record, '^%d+\n%d+\n[^\n]*\n%d+:%d+:(.*)$')
    redis.call('RPUSH', KEYS[2], id .. ':1:' .. body)
    redis.call('HDEL', KEYS[1], id, '#' .. order)
    bytes, count = bytes + #body, count + 1
  end
  order = order + 1
end
if count > 0 then
  redis.call('HSET', KEYS[4], 'retry', string.format('%s %.0f %.0f', ARGV[3], order, count))
  ring(KEYS[3])
end
return {order, count}
