-- Append messages to the queue, all or none, if the lease is the caller's and the ids come next.
-- No message at all is a look: it renews and answers. Asked to, it has the generator woken at room.
-- Wide ones come as their bodies alone, for the caller would hold a long one twice.
-- USES: _ring
-- KEYS: lease sequence queue bell handlers stats later
-- ARGV: owner token first(id) renew(0|1) max-queue wide(0|1) copy [message, or body of a wide one ...]
-- RETURNS: {1 applied | 0 applied before | -1 deposed | -2 gap, sequence, messages in queue and later,
--           handlers}
local held = redis.call('HMGET', KEYS[1], 'owner', 'token', 'ttl')
local sequence = tonumber(redis.call('GET', KEYS[2]) or '0')
local count, first, limit = #ARGV - 7, tonumber(ARGV[3]), tonumber(ARGV[5])
local later, state = redis.call('ZCARD', KEYS[7]), 1 -- they come back, and must find room
local queue = redis.call('LLEN', KEYS[3]) + later
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return {-1, sequence, queue, 0} end
if count > 0 and sequence >= first + count - 1 then
  state = 0
elseif count > 0 and sequence ~= first - 1 then
  return {-2, sequence, queue, 0}
elseif count > 0 then
  for _, key in ipairs({KEYS[4], KEYS[5]}) do redis.call('ZCARD', key) end -- types, before writes
  redis.call('HLEN', KEYS[6])
  for i = 8, ARGV[6] == '1' and #ARGV or 0 do
    ARGV[i] = string.format('%.0f:1:', first + i - 8) .. ARGV[i]
  end
  queue = redis.call('RPUSH', KEYS[3], unpack(ARGV, 8)) + later
  sequence = first + count - 1
  redis.call('SET', KEYS[2], string.format('%.0f', sequence))
  if ARGV[6] == '1' then redis.call('HSET', KEYS[6], 'wide', 1) end
  ring(KEYS[4])
end
if ARGV[4] == '1' then redis.call('PEXPIRE', KEYS[1], held[3]) end
if count > 0 and queue < limit then return {state, sequence, queue, 0} end
local room = math.floor(limit / 2)
if queue > room then redis.call('HSET', KEYS[1], 'room', room, 'copy', ARGV[7]) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return {state, sequence, queue, redis.call('ZCOUNT', KEYS[5], '(' .. now, '+inf')}
