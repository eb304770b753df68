-- Say at one instant where each id is. The lists are read through only when asked to.
-- A temp of no handler is a place by its own name.
-- KEYS: sequence handlers errors taken queue again later store [temp ..., temps of no handler ...]
-- ARGV: through(0|1) number(handlers) handler ... id ...
-- RETURNS: {sequence, {{place of the first id, ...}, ...}}, or 0 the handlers have changed
local handlers, known = redis.call('ZRANGE', KEYS[2], 0, -1), {}
for i = 3, 2 + ARGV[2] do known[ARGV[i]] = true end
for _, handler in ipairs(handlers) do
  if not known[handler] then return 0 end
end
local places, answer = {}, {}
for i = 3 + ARGV[2], #ARGV do
  local id, here = ARGV[i], {}
  if redis.call('HEXISTS', KEYS[3], id) == 1 then here[#here + 1] = 'errors' end
  if redis.call('SISMEMBER', KEYS[4], id) == 1 then here[#here + 1] = 'taken' end
  if redis.call('HEXISTS', KEYS[8], id) == 1 then here[#here + 1] = 'store' end
  for k = 9, #KEYS do
    local place = k > 8 + ARGV[2] and string.match(KEYS[k], '}:(.*)$') or 'temp'
    if redis.call('HEXISTS', KEYS[k], id) == 1 then here[#here + 1] = place end
  end
  places[id] = here
end
local function look(name, read, key, length)
  for from = 0, length - 1, 1000 do
    for _, message in ipairs(redis.call(read, key, from, from + 999)) do
      local here = places[string.match(message, '^(%d+):')]
      if here then here[#here + 1] = name end
    end
  end
end
if ARGV[1] == '1' then
  look('queue', 'LRANGE', KEYS[5], redis.call('LLEN', KEYS[5]))
  look('again', 'LRANGE', KEYS[6], redis.call('LLEN', KEYS[6]))
  look('later', 'ZRANGE', KEYS[7], redis.call('ZCARD', KEYS[7]))
end
for i = 3 + ARGV[2], #ARGV do answer[#answer + 1] = places[ARGV[i]] end
return {tonumber(redis.call('GET', KEYS[1]) or '0'), answer}
