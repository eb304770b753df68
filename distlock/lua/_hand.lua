-- The messages of a hand, without its name.
local function hand(temp)
  local fields, messages = redis.call('HGETALL', temp), {}
  for i = 1, #fields, 2 do
    if fields[i] ~= '#' then messages[#messages + 1] = fields[i + 1] end
  end
  return messages
end
-- The same as the answer tells them: one above 1 MB only as `id:attempt@bytes`, to be read in parts.
local function told(messages)
  for i, message in ipairs(messages) do
    if #message > 1000000 then
      messages[i] = string.match(message, '^%d+:%d+') .. '@' .. #message
    end
  end
  return messages
end
