-- Read a lease, its last token and at most 1,000 of those who wait for it; changes nothing.
-- KEYS: lease token line
-- ARGV: none
-- RETURNS: {ms left with the lock delay, {field value ...}, last token, {entry ...}}
return {
  redis.call('PTTL', KEYS[1]),
  redis.call('HGETALL', KEYS[1]),
  redis.call('GET', KEYS[2]) or '0',
  redis.call('LRANGE', KEYS[3], 0, 999),
}
