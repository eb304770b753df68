-- Settle the whole hand, claim the next and name it, if the caller's hand is the one that is there.
-- If its name begins with `next`, this is the second arrival: it answers what the first one claimed.
-- Wanting 0 messages is a goodbye.
-- USES: _ring _fail _settle _claim
-- KEYS: temp handlers queue again later bell stats errors lease [store ...]
-- ARGV: handler hand next want ttl(ms) attempts failed returned, failed x {id report}, returned x id,
--       for each store: count, ids and results
-- RETURNS: {name or '', lease's ms left, a dead handler or '', queue length, {message ...}}
local name = redis.call('HGET', KEYS[1], '#') or ''
local messages = {}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local goodbye = ARGV[4] == '0'
if name == ARGV[2] then
  local unsettled = settle(now)
  if unsettled then return unsettled end
  name = string.format('%s-%.0f', ARGV[3], time[1] * 1000000 + time[2])
  if goodbye then
    redis.call('ZREM', KEYS[2], ARGV[1])
  else
    messages = claim(now, name)
  end
elseif string.find(name, ARGV[3] .. '-', 1, true) == 1 then
  local fields = redis.call('HGETALL', KEYS[1])
  for i = 1, #fields, 2 do
    if fields[i] ~= '#' then messages[#messages + 1] = fields[i + 1] end
  end
else
  return {'', 0, '', 0, messages}
end
if not goodbye then redis.call('ZADD', KEYS[2], now + ARGV[5], ARGV[1]) end
redis.call('ZREM', KEYS[6], ARGV[1])
local queue = redis.call('LLEN', KEYS[3])
if queue > 0 or redis.call('LLEN', KEYS[4]) > 0 then ring(KEYS[6]) end
local lease = redis.call('HMGET', KEYS[9], 'ttl', 'room', 'copy')
local left = redis.call('PTTL', KEYS[9])
if lease[1] and left > tonumber(lease[1]) then -- the clock was set back
  redis.call('PEXPIRE', KEYS[9], lease[1])
end
if lease[2] and queue <= tonumber(lease[2]) then
  redis.call('HDEL', KEYS[9], 'room')
  redis.call('PUBLISH', KEYS[6] .. ':' .. lease[3], '')
end
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local dead = first[2] and tonumber(first[2]) < now and first[1] or ''
return {name, math.max(left, 0), dead, queue, messages}
