-- Put a message among the errors under the next order number; the report is one line.
local function fail(errors, stats, now, message, report)
  local id = string.match(message, '^%d+')
  local order = redis.call('HINCRBY', stats, 'errors', 1)
  local record = table.concat({order, now, report, message}, '\n')
  redis.call('HSET', errors, id, record, '#' .. order, id)
end
