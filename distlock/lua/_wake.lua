-- Say something to all of the waiters (`address right`) who wait for one flight.
local function wake(waiters, right, said)
  local its, text, called = ' ' .. (right or ''), (right or '') .. ' ' .. said, {}
  for _, waiter in ipairs(waiters) do
    if right and string.sub(waiter, -#its) == its then
      redis.call('PUBLISH', 'distlock:wake:' .. string.sub(waiter, 1, -#its - 1), text)
      called[#called + 1] = waiter
    end
  end
  if #called > 0 and #called == #waiters then return redis.call('DEL', KEYS[4]) end
  for _, waiter in ipairs(called) do redis.call('SREM', KEYS[4], waiter) end
end
