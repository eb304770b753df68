-- Make the caller the owner if the lease is free and nobody waits; else, asked to, stand in line.
-- A look that finds the lease free gives it to the first waiter that listens, so nobody barges in.
-- Who takes a free lease names the last token, whose end it has seen: a late copy of it is refused.
-- Its token is above every one that it knows of, although a failover may have forgotten some.
-- USES: _term _grant
-- KEYS: lease token line
-- ARGV: entry(address owner ttl delay retention watch) seen join(0|1) highest-known
-- RETURNS: {token or 0, ms left, last token, time(us), 1 first in line, holder's connections}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local owner, token, left, delay = term()
local last = redis.call('GET', KEYS[2]) or '0'
if not owner and redis.call('LLEN', KEYS[3]) > 0 then
  owner, token, left = grant(tonumber(last), ARGV[1])
  last = token or last
end
if not owner then
  if ARGV[2] ~= last then return {0, 0, tonumber(last), now, 0, ''} end
  owner, token, left = take(ARGV[1], math.max(last + 1, now, ARGV[4] + 1))
  last = token
end
if owner == string.match(ARGV[1], '^%S+ (%S+)') then
  if left > 0 then return {tonumber(token), left, tonumber(last), now, 0, ''} end
  return {0, left + delay, tonumber(last), now, 0, ''}
end
local first, connections = 0, ''
if ARGV[3] == '1' then
  if not redis.call('LPOS', KEYS[3], ARGV[1]) then redis.call('RPUSH', KEYS[3], ARGV[1]) end
  if string.sub(ARGV[1], -1) == '1' and redis.call('LINDEX', KEYS[3], 0) == ARGV[1] then
    first, connections = 1, redis.call('HGET', KEYS[1], 'connections') or ''
  end
end
return {0, left + delay, tonumber(last), now, first, connections}
