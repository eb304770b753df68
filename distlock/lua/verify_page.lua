-- Read the ids, without their bodies, of one page of a list or a sorted set.
-- KEYS: key
-- ARGV: first last
-- RETURNS: {id or the whole text where there is none, ...}
local zset = redis.call('TYPE', KEYS[1]).ok == 'zset'
local page = redis.call(zset and 'ZRANGE' or 'LRANGE', KEYS[1], ARGV[1], ARGV[2])
for i, message in ipairs(page) do page[i] = string.match(message, '^(%d+):%d+:') or message end
return page
