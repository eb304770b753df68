-- Say something to all of the waiters (`address topic right`) who wait for one flight, and strike them off.
local function wake(waiters, right, said)
  local its = ' ' .. (right or '')
  for _, waiter in ipairs(waiters) do
    if right and string.sub(waiter, -#its) == its then
      local address, topic = string.match(waiter, '^(%S+) (%S+)')
      redis.call('PUBLISH', 'distlock:wake:' .. address, topic .. ' ' .. said)
      redis.call('SREM', KEYS[4], waiter)
    end
  end
end
