-- The term under way: its owner or nil, its token, its ms left, the lock delay after it, and its ttl.
-- A clock that was set back would stretch a term: then it is cut to its ttl here.
local function term()
  local held = redis.call('HMGET', KEYS[1], 'owner', 'token', 'ttl', 'delay')
  if not held[1] then return nil, nil, 0, 0, 0 end
  local delay = tonumber(held[4])
  local left, most = redis.call('PTTL', KEYS[1]), held[3] + delay
  if left < 0 or left > most then
    redis.call('PEXPIRE', KEYS[1], most)
    left = most
  end
  return held[1], held[2], left - delay, delay, tonumber(held[3])
end
