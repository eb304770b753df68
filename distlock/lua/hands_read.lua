-- Read the names of hands, without their messages; changes nothing.
-- KEYS: temp ...
-- ARGV: none
-- RETURNS: {name or '' ...}
local names = {}
for i, key in ipairs(KEYS) do names[i] = redis.call('HGET', key, '#') or '' end
return names
