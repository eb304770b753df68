-- Put messages among the errors, under the next order numbers; what came is each with a report, one line.
local function fail(errors, stats, now, came)
  if #came == 0 then return end
  local order, fields = redis.call('HINCRBY', stats, 'errors', #came / 2) - #came / 2, {}
  for i = 1, #came, 2 do
    order = order + 1
    local id = string.match(came[i], '^%d+')
    local record = table.concat({order, now, came[i + 1], came[i]}, '\n')
    for _, field in ipairs({id, record, '#' .. order, id}) do fields[#fields + 1] = field end
  end
  redis.call('HSET', errors, unpack(fields))
end
