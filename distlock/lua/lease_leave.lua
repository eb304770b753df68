-- Leave the line, or give back what was granted meanwhile: after it the request for this owner is over.
-- USES: _grant
-- KEYS: lease token line
-- ARGV: entry
-- RETURNS: 1 the lease was given back, 0 it was not the caller's
local owner, last = redis.call('HGET', KEYS[1], 'owner'), redis.call('GET', KEYS[2]) or '0'
local first = redis.call('LINDEX', KEYS[3], 0) == ARGV[1]
if owner == string.match(ARGV[1], '^%S+ (%S+)') then
  redis.call('DEL', KEYS[1]) -- an owner does not stand in line
  grant(tonumber(last))
  return 1
end
redis.call('LREM', KEYS[3], 0, ARGV[1])
local next = first and redis.call('LINDEX', KEYS[3], 0)
if next and string.sub(next, -1) == '1' then tell() end -- it watches from now on
return 0
