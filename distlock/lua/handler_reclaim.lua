-- Take the whole hand of a dead handler: to `again`, or to the errors when so asked.
-- Only a message that was alone in its hand uses up an attempt: it may be what kills.
-- The caller names the end of the life that it has seen, so a late copy takes no hand of a later one.
-- USES: _ring _hand _fail
-- KEYS: temp handlers again stats errors bell
-- ARGV: handler attempts report drop(0|1) request(id) deadline(ms)
-- RETURNS: messages taken (also to the last request, if it arrives again), or -1 the handler is not
--          dead, or was reclaimed before
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local deadline = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or '')
local request, taken = string.match(redis.call('HGET', KEYS[4], 'reclaim') or '', '(%S+) (%d+)')
if request == ARGV[5] then return tonumber(taken) end
if not deadline or deadline ~= tonumber(ARGV[6]) or deadline >= now then return -1 end
local messages = hand(KEYS[1])
redis.call('LLEN', KEYS[3]); redis.call('HLEN', KEYS[5]); redis.call('ZCARD', KEYS[6])
local again, last = {}, {}
for _, message in ipairs(messages) do
  local id, attempt, body = string.match(message, '^(%d+):(%d+):(.*)$')
  if ARGV[4] == '1' or (#messages == 1 and tonumber(attempt) >= tonumber(ARGV[2])) then
    last[#last + 1] = message
    last[#last + 1] = ARGV[3]
  elseif #messages == 1 then
    again[1] = id .. ':' .. (attempt + 1) .. ':' .. body
  else
    again[#again + 1] = message
  end
end
fail(KEYS[5], KEYS[4], now, last)
if #again > 0 then redis.call('RPUSH', KEYS[3], unpack(again)) end
if #messages > 0 then redis.call('HINCRBY', KEYS[4], 'reclaimed', #messages) end
redis.call('HSET', KEYS[4], 'reclaim', ARGV[5] .. ' ' .. #messages)
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
if #again > 0 then ring(KEYS[6]) end
return #messages
