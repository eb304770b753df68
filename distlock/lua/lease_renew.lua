-- Set the time left of a lease that is still the caller's; one that has expired stays expired.
-- USES: _term
-- KEYS: lease
-- ARGV: owner token connections('' as before)
-- RETURNS: 1 renewed, 0 no longer the caller's
local owner, token, left, delay, ttl = term()
if owner ~= ARGV[1] or token ~= ARGV[2] or left <= 0 then return 0 end
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'connections', ARGV[3]) end
redis.call('PEXPIRE', KEYS[1], ttl + delay)
return 1
