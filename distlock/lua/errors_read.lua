-- Read the errors from an order number on: at most 1,000 or, from the second record on, 1 MB.
-- KEYS: errors
-- ARGV: first(order) last(order)
-- RETURNS: {next order, {record ...}}
local order, last, bytes, records = tonumber(ARGV[1]), tonumber(ARGV[2]), 0, {}
local stop = math.min(last, order + 9999)
while order <= stop and #records < 1000 do
  local id = redis.call('HGET', KEYS[1], '#' .. order)
  if id then
    bytes = bytes + redis.call('HSTRLEN', KEYS[1], id)
    if #records > 0 and bytes > 1000000 then return {order, records} end
    records[#records + 1] = redis.call('HGET', KEYS[1], id)
  end
  order = order + 1
end
return {order, records}
