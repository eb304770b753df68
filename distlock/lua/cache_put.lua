-- Set or delete a value, once, and void the right of whoever computes it.
-- USES: _keep
-- KEYS: value flight fresh done
-- ARGV: id value expire(ms, 0 to delete) stale(ms)
-- RETURNS: 1 done, 0 it was done before
if redis.call('SADD', KEYS[4], ARGV[1]) == 0 then return 0 end
redis.call('PEXPIRE', KEYS[4], 60000)
ended(ARGV[1])
if ARGV[3] == '0' then redis.call('DEL', KEYS[1], KEYS[3]) else keep(ARGV[2], ARGV[3], ARGV[4]) end
return 1
