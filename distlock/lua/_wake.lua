-- Say something to all of the waiters (`address right`) who wait for one flight.
local function wake(waiters, right, said)
  for _, waiter in ipairs(waiters) do
    local address, its = string.match(waiter, '^(%S+) (%S+)$')
    if its == right then
      redis.call('PUBLISH', 'distlock:wake:' .. address, right .. ' ' .. said)
      redis.call('SREM', KEYS[4], waiter)
    end
  end
end
