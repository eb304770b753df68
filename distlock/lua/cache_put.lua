-- Set or delete a value, and void the right of whoever computes it.
-- USES: _flight _keep
-- KEYS: value flight fresh
-- ARGV: id value expire(ms, 0 to delete) stale(ms)
-- RETURNS: 1 done, 0 it was done before
local _, _, last = flight()
if last == ARGV[1] then return 0 end
ended(ARGV[1], ARGV[1])
if ARGV[3] == '0' then redis.call('DEL', KEYS[1], KEYS[3]) else keep(ARGV[2], ARGV[3], ARGV[4]) end
return 1
