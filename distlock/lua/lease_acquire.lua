-- Make the caller the owner if the lease is free and its last token is the one the caller has seen.
-- A copy of this request that arrives later finds a newer token and changes nothing.
-- KEYS: lease token
-- ARGV: owner ttl(ms) seen
-- RETURNS: {token or 0, ms left, last token}
local held = redis.call('HMGET', KEYS[1], 'owner', 'token', 'ttl')
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
if held[1] then
  local left, ttl = redis.call('PTTL', KEYS[1]), tonumber(held[3])
  if left < 0 or left > ttl then -- the clock was set back
    redis.call('PEXPIRE', KEYS[1], ttl)
    left = ttl
  end
  return {held[1] == ARGV[1] and tonumber(held[2]) or 0, left, last}
end
if ARGV[3] ~= string.format('%.0f', last) then return {0, 0, last} end
local time = redis.call('TIME')
local token = math.max(last + 1, time[1] * 1000000 + time[2])
local text = string.format('%.0f', token)
redis.call('SET', KEYS[2], text)
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'token', text, 'ttl', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {token, tonumber(ARGV[2]), token}
