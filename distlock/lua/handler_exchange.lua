-- Settle the whole hand, claim the next and name it, if the caller's hand is the one that is there.
-- If its name begins with `next`, this is the second arrival: it answers what the first one claimed.
-- Wanting 0 messages is a goodbye. All reads come first: they are the check of the keys' types.
-- USES: _ring _hand _fail _settle _claim
-- KEYS: temp handlers queue again later bell stats errors lease [store ...]
-- ARGV: handler hand next want ttl(ms) attempts failed returned, failed x {id report}, returned x id,
--       for each store: count, ids and results
-- RETURNS: {name or '', lease's ms left, a dead handler or '', queue length, {message ...}}
local name = redis.call('HGET', KEYS[1], '#') or ''
local again = string.find(name, ARGV[3] .. '-', 1, true) == 1
if name ~= ARGV[2] and not again then return {'', 0, '', 0, {}} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local queue, messages = redis.call('LLEN', KEYS[3]), {}
local before = {
  again = redis.call('LLEN', KEYS[4]),
  later = redis.call('ZCARD', KEYS[5]),
  wide = redis.call('HGET', KEYS[7], 'wide'),
}
local waiting = redis.call('ZCARD', KEYS[6])
local lease = redis.call('HMGET', KEYS[9], 'ttl', 'room', 'copy')
local left = redis.call('PTTL', KEYS[9])
if again then
  messages = hand(KEYS[1])
else
  local refusal, claimed = settle(now), 0
  if refusal then return refusal end
  name = string.format('%s-%.0f', ARGV[3], time[1] * 1000000 + time[2])
  if ARGV[4] ~= '0' then messages, claimed = claim(now, name, before) end
  queue = queue + ARGV[8] - claimed
end
if ARGV[4] == '0' then
  redis.call('ZREM', KEYS[2], ARGV[1])
else
  redis.call('ZADD', KEYS[2], now + ARGV[5], ARGV[1])
end
if waiting > 0 then
  redis.call('ZREM', KEYS[6], ARGV[1])
  if queue > 0 or before.again > 1 then ring(KEYS[6]) end
end
if lease[1] and left > tonumber(lease[1]) then -- the clock was set back
  redis.call('PEXPIRE', KEYS[9], lease[1])
end
if lease[2] and queue <= tonumber(lease[2]) then
  redis.call('HDEL', KEYS[9], 'room')
  redis.call('PUBLISH', KEYS[6] .. ':' .. lease[3], '')
end
local dead = first[1] and first[1] ~= ARGV[1] and tonumber(first[2]) < now and first[1] or ''
return {name, math.max(left, 0), dead, queue, messages}
