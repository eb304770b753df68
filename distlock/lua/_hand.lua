-- The messages of a hand, without its name.
local function hand(temp)
  local fields, messages = redis.call('HGETALL', temp), {}
  for i = 1, #fields, 2 do
    if fields[i] ~= '#' then messages[#messages + 1] = fields[i + 1] end
  end
  return messages
end
