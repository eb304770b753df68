-- Say something to all of the waiters (`address right`) who wait for one flight, and strike them off.
local function wake(waiters, right, said)
  local its, message, struck = ' ' .. (right or ''), (right or '') .. ' ' .. said, {}
  for _, waiter in ipairs(waiters) do
    if string.sub(waiter, -#its) == its then
      redis.call('PUBLISH', 'distlock:wake:' .. string.sub(waiter, 1, -#its - 1), message)
      struck[#struck + 1] = waiter
    end
  end
  for i = 1, #struck, 1000 do
    redis.call('SREM', KEYS[4], unpack(struck, i, math.min(i + 999, #struck)))
  end
end
