-- Set the time left of a lease that is still the caller's; one that has expired stays expired.
-- KEYS: lease
-- ARGV: owner token
-- RETURNS: 1 renewed, 0 no longer the caller's
local held = redis.call('HMGET', KEYS[1], 'owner', 'token', 'ttl')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return 0 end
redis.call('PEXPIRE', KEYS[1], held[3])
return 1
