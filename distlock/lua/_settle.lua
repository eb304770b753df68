-- Store, fail or give back each message of the hand; the keys and arguments are those of exchange.
-- A refusal, or a foreign key, leaves everything as it was.
local function settle(now)
  local failed, returned = tonumber(ARGV[8]), tonumber(ARGV[9])
  local first, count = 10 + 2 * failed + returned, failed + returned
  local at = first
  for i = 10, #KEYS do
    redis.call('HLEN', KEYS[i])
    count = count + tonumber(ARGV[at]) / 2
    at = at + 1 + ARGV[at]
  end
  if tonumber(string.match(ARGV[2], '/(%d+)$')) ~= count then
    return redis.error_reply('HAND the hand has another number of messages')
  end
  redis.call('ZCARD', KEYS[2])
  if failed > 0 then redis.call('HLEN', KEYS[8]) end
  redis.call('ZADD', KEYS[2], now + ARGV[5], ARGV[1])
  at = first
  for i = 10, #KEYS do
    redis.call('HSET', KEYS[i], unpack(ARGV, at + 1, at + ARGV[at]))
    at = at + 1 + ARGV[at]
  end
  local stored = count - failed - returned
  if stored > 0 then redis.call('HINCRBY', KEYS[7], 'stored', stored) end
  local later, last = {}, {}
  for i = 10, 8 + 2 * failed, 2 do
    local message = redis.call('HGET', KEYS[1], ARGV[i])
    local id, attempt, body = string.match(message, '^(%d+):(%d+):(.*)$')
    attempt = tonumber(attempt)
    if attempt < tonumber(ARGV[6]) then
      later[#later + 1] = now + math.min(500 * 2 ^ (attempt - 1), 30000)
      later[#later + 1] = id .. ':' .. (attempt + 1) .. ':' .. body
    else
      last[#last + 1] = message
      last[#last + 1] = ARGV[i + 1]
    end
  end
  if #later > 0 then redis.call('ZADD', KEYS[5], unpack(later)) end
  if #later > 0 then redis.call('HINCRBY', KEYS[7], 'retries', #later / 2) end
  fail(KEYS[8], KEYS[7], now, last)
  for i = first - 1, first - returned, -1 do
    redis.call('LPUSH', KEYS[3], redis.call('HGET', KEYS[1], ARGV[i]))
  end
  redis.call('DEL', KEYS[1])
end
