-- Fill the hand: one message of a dead hand alone, else retries that are due, then the queue.
-- In a job with messages above 1 kB they are counted one by one, and a hand ends at 1 MB.
-- Returns the messages, the hand's name with their number, how many of them the queue gave, and what
-- in the queue is no message: then that stays as it was.
local function claim(now, name, again, later, wide)
  local want, bytes, messages, claimed, foreign = tonumber(ARGV[4]), 0, {}, 0, nil
  local step = wide and 1 or want
  local function take(pop)
    local some
    repeat
      some = pop(math.min(step, want - #messages))
      for _, message in ipairs(some) do
        messages[#messages + 1] = message
        bytes = bytes + #message
      end
    until #some == 0 or #messages >= want or bytes >= 1000000
  end
  if again > 0 then
    messages[1] = redis.call('LPOP', KEYS[4])
  else
    if later > 0 then
      take(function(count)
        local due = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now, 'LIMIT', 0, count)
        if #due > 0 then redis.call('ZREM', KEYS[5], unpack(due)) end
        return due
      end)
    end
    local due = #messages
    if due < want and bytes < 1000000 then
      take(function(count) return redis.call('LPOP', KEYS[3], count) or {} end)
    end
    for i = due + 1, #messages do
      if not string.find(messages[i], '^%d+:%d+:') then foreign = messages[i] end
    end
    while foreign and #messages > due do redis.call('LPUSH', KEYS[3], table.remove(messages)) end
    claimed = #messages - due
  end
  name = name .. '/' .. #messages
  local fields = {'#', name}
  for i, message in ipairs(messages) do
    fields[2 * i + 1] = string.match(message, '^%d+')
    fields[2 * i + 2] = message
  end
  redis.call('HSET', KEYS[1], unpack(fields))
  return messages, name, claimed, foreign
end
