-- Read a value for a near cache: with the time for which it may be kept.
-- KEYS: value flight fresh
-- ARGV: none
-- RETURNS: {value, flight, fresh, ms left of the value, ms left of fresh}
local found = redis.call('MGET', KEYS[1], KEYS[2], KEYS[3])
return {found[1], found[2], found[3], redis.call('PTTL', KEYS[1]), redis.call('PTTL', KEYS[3])}
