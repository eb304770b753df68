-- Give the lease back, if it is still the caller's; the first waiter that listens is the next owner.
-- USES: _grant
-- KEYS: lease token line
-- ARGV: owner token
-- RETURNS: 1 released, 0 no longer the caller's
local held = redis.call('HMGET', KEYS[1], 'owner', 'token')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return 0 end
local last = redis.call('LLEN', KEYS[3]) > 0 and (redis.call('GET', KEYS[2]) or held[2])
redis.call('DEL', KEYS[1])
if last then grant(tonumber(last)) end
return 1
