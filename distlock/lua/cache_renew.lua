-- Keep the right to compute for another ttl; never bring back one that has gone on.
-- USES: _flight
-- KEYS: value flight
-- ARGV: right ttl(ms)
-- RETURNS: 1 kept, 0 gone on
local _, right = flight()
if right ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
