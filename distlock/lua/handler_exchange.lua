-- Settle the whole hand, claim the next and name it, if the caller's hand is the one that is there.
-- If its name begins with `next`, this is the second arrival: it answers what the first one claimed.
-- Wanting 0 messages is a goodbye. Each key is read, or not there, before the first write.
-- USES: _ring _hand _fail _settle _claim
-- KEYS: temp handlers queue again later bell stats errors lease [store ...]
-- ARGV: handler hand next want ttl(ms) attempts look(0|1) failed returned, failed x {id report},
--       returned x id, for each store: count, ids and results
-- RETURNS: {name or '', lease's ms left or -1 not looked, a dead handler or '', queue length,
--           {message, or id:attempt@bytes of one above 1 MB ...}}
local name = redis.call('HGET', KEYS[1], '#') or ''
local mine = string.find(name, ARGV[3] .. '-', 1, true) == 1
if name ~= ARGV[2] and not mine then return {'', 0, '', 0, {}} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local goodbye, left, dead, messages = ARGV[4] == '0', -1, '', {}
local queue = redis.call('LLEN', KEYS[3])
local wide = redis.call('HGET', KEYS[7], 'wide')
local others = redis.call('EXISTS', KEYS[4], KEYS[5], KEYS[6]) > 0 -- hardly ever, in full swing
local again = others and redis.call('LLEN', KEYS[4]) or 0
local later = others and redis.call('ZCARD', KEYS[5]) or 0
local waiting = others and redis.call('ZCARD', KEYS[6]) or 0
local lease = redis.call('HMGET', KEYS[9], 'ttl', 'room', 'copy')
if ARGV[7] == '1' then
  left = lease[1] and math.max(redis.call('PTTL', KEYS[9]), 0) or 0
  local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  if first[1] and first[1] ~= ARGV[1] and tonumber(first[2]) < now then dead = first[1] end
end
if mine then
  messages = hand(KEYS[1])
else
  local refusal, claimed, foreign = settle(now), 0, nil
  if refusal then return refusal end
  name = string.format('%s-%.0f', ARGV[3], time[1] * 1000000 + time[2])
  if not goodbye then messages, name, claimed, foreign = claim(now, name, again, later, wide) end
  if foreign then return redis.error_reply('FOREIGN ' .. string.sub(foreign, 1, 60)) end
  queue = queue + ARGV[9] - claimed
end
if goodbye then redis.call('ZREM', KEYS[2], ARGV[1]) end
if waiting > 0 then redis.call('ZREM', KEYS[6], ARGV[1]) end
if waiting > 0 and (queue > 0 or again > 1) then ring(KEYS[6]) end
if left > tonumber(lease[1] or 0) then redis.call('PEXPIRE', KEYS[9], lease[1]) end -- clock set back
if lease[2] and queue <= tonumber(lease[2]) then
  redis.call('HDEL', KEYS[9], 'room')
  redis.call('PUBLISH', KEYS[6] .. ':' .. lease[3], '')
end
return {name, left, dead, queue, wide and told(messages) or messages}
