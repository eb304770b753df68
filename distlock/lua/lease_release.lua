-- Give the lease back, if it is still the caller's.
-- KEYS: lease
-- ARGV: owner token
-- RETURNS: 1 released, 0 no longer the caller's
local held = redis.call('HMGET', KEYS[1], 'owner', 'token')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return 0 end
return redis.call('DEL', KEYS[1])
