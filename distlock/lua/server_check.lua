-- Say which of our keys hold something else, and which commands this user may not run; changes nothing.
-- KEYS: key ...
-- ARGV: type of each key ..., command ...
-- RETURNS: {{key, type found} ...}, {command ...}
local foreign, refused = {}, {}
for i, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= ARGV[i] then foreign[#foreign + 1] = {key, found} end
end
for i = #KEYS + 1, #ARGV do
  -- Redis 6.2 cannot say; there a refusal shows itself later
  if redis.acl_check_cmd and not redis.acl_check_cmd(ARGV[i], KEYS[1], KEYS[1], KEYS[1]) then
    refused[#refused + 1] = ARGV[i]
  end
end
return {foreign, refused}
