-- Say something to all of the waiters (`address topic right`) who wait for one flight.
local function wake(waiters, right, said)
  local its, called = ' ' .. (right or ''), {}
  for _, waiter in ipairs(waiters) do
    if right and string.sub(waiter, -#its) == its then
      local address, topic = string.match(waiter, '^(%S+) (%S+)')
      redis.call('PUBLISH', 'distlock:wake:' .. address, topic .. ' ' .. said)
      called[#called + 1] = waiter
    end
  end
  if #called > 0 and #called == #waiters then return redis.call('DEL', KEYS[4]) end
  for _, waiter in ipairs(called) do redis.call('SREM', KEYS[4], waiter) end
end
