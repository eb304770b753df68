-- Read all numbers of a pipeline at one instant; changes nothing.
-- KEYS: job lease token sequence queue again later handlers errors taken stats
-- ARGV: none
-- RETURNS: {now ms, job, lease, lease's ms left, token, sequence, queue, again, later, errors,
--           taken, stats, {handler, deadline ms, ...}}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return {
  now,
  redis.call('HGETALL', KEYS[1]),
  redis.call('HGETALL', KEYS[2]),
  redis.call('PTTL', KEYS[2]),
  redis.call('GET', KEYS[3]) or '0',
  redis.call('GET', KEYS[4]) or '0',
  redis.call('LLEN', KEYS[5]),
  redis.call('LLEN', KEYS[6]),
  redis.call('ZCARD', KEYS[7]),
  redis.call('HLEN', KEYS[9]) / 2,
  redis.call('SCARD', KEYS[10]),
  redis.call('HGETALL', KEYS[11]),
  redis.call('ZRANGE', KEYS[8], 0, 999, 'WITHSCORES'),
}
