-- A handler with nothing in hand asks how long nothing can happen, and stands in line for the bell.
-- Ends what a clock set back would stretch: back-offs, deadlines and the lease.
-- USES: _ring
-- KEYS: handlers queue again later bell stats errors lease sequence job taken
-- ARGV: handler ttl(ms) longest-wait(ms) job(id)
-- RETURNS: {0 wait | 1 there is work | 2 the job is done | -1 given up for dead | -2 the job is gone,
--           ms to wait, lease's ms left or -1 when all is generated, a dead handler or '',
--           for one at a time, who is to watch: the lease's token and its owner's connections}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local job = redis.call('HMGET', KEYS[10], 'id', 'messages', 'attempts')
if job[1] ~= ARGV[4] then return {-2, 0, 0, '', 0, ''} end
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return {-1, 0, 0, '', 0, ''} end
local all, sequence = tonumber(job[2]), tonumber(redis.call('GET', KEYS[9]) or '0')
local kept = tonumber(redis.call('HGET', KEYS[6], 'stored') or '0')
  + redis.call('HLEN', KEYS[7]) / 2 + redis.call('SCARD', KEYS[11])
local ready, resting = redis.call('LLEN', KEYS[2]) + redis.call('LLEN', KEYS[3]), redis.call('ZCARD', KEYS[5])
redis.call('ZCARD', KEYS[4])
local ttl, left = redis.call('HGET', KEYS[8], 'ttl'), redis.call('PTTL', KEYS[8])
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
local longest = math.min(500 * 2 ^ math.max(job[3] - 2, 0), 30000) -- the last back-off of all
for _, late in ipairs({{KEYS[1], tonumber(ARGV[2])}, {KEYS[4], longest}}) do
  local far = redis.call('ZRANGEBYSCORE', late[1], '(' .. now + late[2], '+inf', 'LIMIT', 0, 1000)
  for _, member in ipairs(far) do redis.call('ZADD', late[1], now + late[2], member) end
end
if ttl and left > tonumber(ttl) then redis.call('PEXPIRE', KEYS[8], ttl) end
left = sequence >= all and -1 or math.max(left, 0)
if sequence >= all and kept >= all then
  while resting > 0 do
    ring(KEYS[5])
    resting = redis.call('ZCARD', KEYS[5])
  end
  return {2, 0, left, '', 0, ''}
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local due = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')[2]
local wait = math.min(ARGV[3], left >= 0 and left or ARGV[3], first[2] - now + 1, (due or now + ARGV[3]) - now)
local dead = tonumber(first[2]) < now and first[1] or ''
if ready > 0 or (due and due - now <= 0) then
  return {1, 0, left, dead, 0, ''}
end
redis.call('ZADD', KEYS[5], 'NX', now, ARGV[1])
wait = math.max(wait, 0)
local held = redis.call('HMGET', KEYS[8], 'token', 'connections', 'watcher', 'watched')
if left > 0 and held[2] and (held[3] == ARGV[1] or now >= tonumber(held[4] or 0)) then
  redis.call('HSET', KEYS[8], 'watcher', ARGV[1], 'watched', now + wait)
  return {0, wait, left, dead, tonumber(held[1]), held[2]}
end
return {0, wait, left, dead, 0, ''}
