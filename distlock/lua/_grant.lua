-- Tell the first waiter in line that listens to look again; those that do not listen are dropped.
local function tell()
  local entry = redis.call('LINDEX', KEYS[3], 0)
  while entry do
    local address, owner = string.match(entry, '^(%S+) (%S+) %d+ %d+ %d+ %d$')
    if address and redis.call('PUBLISH', 'distlock:wake:' .. address, owner .. ' look') > 0 then return end
    redis.call('LPOP', KEYS[3])
    entry = redis.call('LINDEX', KEYS[3], 0)
  end
end
-- Make the one whose entry it is the owner, under a token that was not given out before.
local function take(entry, token)
  local words = '^%S+ (%S+) (%d+) (%d+) (%d+)'
  local owner, ttl, delay, retention = string.match(entry, words)
  local text = string.format('%.0f', token)
  redis.call('SET', KEYS[2], text)
  if retention ~= '0' then redis.call('PEXPIRE', KEYS[2], retention) end
  redis.call('HSET', KEYS[1], 'owner', owner, 'token', text, 'ttl', ttl, 'delay', delay)
  redis.call('PEXPIRE', KEYS[1], ttl + delay)
  return owner, text, tonumber(ttl)
end
-- Make the first waiter in line that listens the owner; `mine` is the caller's entry, who needs no call.
-- The next one looks by itself within its own ttl; only when that is too late it is told to.
local function grant(last, mine)
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  local token = math.max(last + 1, now)
  local entry = redis.call('LPOP', KEYS[3])
  while entry do
    local address, owner = string.match(entry, '^(%S+) (%S+) %d+ %d+ %d+ %d$') -- else it is not ours
    local called = address and string.format('%s %.0f %.0f', owner, token, now)
    if entry == mine or (called and redis.call('PUBLISH', 'distlock:wake:' .. address, called) > 0) then
      local new, text, ttl = take(entry, token)
      local its, watches = string.match(redis.call('LINDEX', KEYS[3], 0) or '', ' (%d+) %d+ %d+ (%d)$')
      if its and (watches == '1' or ttl < tonumber(its)) then tell() end
      return new, text, ttl
    end
    entry = redis.call('LPOP', KEYS[3])
  end
end
