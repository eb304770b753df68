-- Refuse unless the lease is the caller's; what follows sees neither the lease nor owner and token.
local held = redis.call('HMGET', KEYS[1], 'owner', 'token', 'delay')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] or redis.call('PTTL', KEYS[1]) <= tonumber(held[3]) then
  return redis.error_reply('LEASELOST the lease has gone on')
end
local KEYS, ARGV = {unpack(KEYS, 2)}, {unpack(ARGV, 3)}
