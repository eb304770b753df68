-- Fill the hand: one message of a dead hand alone, else retries that are due, then the queue.
-- In a job with messages above 1 kB they are counted one by one, and a hand ends at 1 MB.
local function claim(now, name)
  local want, bytes, messages = tonumber(ARGV[4]), 0, {}
  local step = want
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
  local again = redis.call('LPOP', KEYS[4])
  if again then
    messages[1] = again
  else
    if redis.call('HGET', KEYS[7], 'wide') then step = 1 end
    take(function(count)
      local due = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now, 'LIMIT', 0, count)
      if #due > 0 then redis.call('ZREM', KEYS[5], unpack(due)) end
      return due
    end)
    if #messages < want and bytes < 1000000 then
      take(function(count) return redis.call('LPOP', KEYS[3], count) or {} end)
    end
  end
  local fields = {'#', name}
  for i, message in ipairs(messages) do
    fields[2 * i + 1] = string.match(message, '^%d+')
    fields[2 * i + 2] = message
  end
  redis.call('HSET', KEYS[1], unpack(fields))
  return messages
end
