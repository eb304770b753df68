-- Read a part of a message that was told by its length, if the hand is still the caller's.
-- KEYS: temp
-- ARGV: hand id first(byte, from 1) last(byte)
-- RETURNS: the part, or '' when the message is in another hand
if redis.call('HGET', KEYS[1], '#') ~= ARGV[1] then return '' end
return string.sub(redis.call('HGET', KEYS[1], ARGV[2]) or '', ARGV[3], ARGV[4])
