-- End the term of a holder whose connections are gone; a lock delay still passes.
-- USES: _term _grant
-- KEYS: lease token line
-- ARGV: token connections
-- RETURNS: 1 ended, 0 the term or its connections are others by now
local owner, token, left, delay = term()
if token ~= ARGV[1] or redis.call('HGET', KEYS[1], 'connections') ~= ARGV[2] then return 0 end
local last = redis.call('GET', KEYS[2]) or token
local waiters = redis.call('LLEN', KEYS[3])
if delay > 0 then
  if left > 0 then redis.call('PEXPIRE', KEYS[1], delay) end
else
  redis.call('DEL', KEYS[1])
  if waiters > 0 then grant(tonumber(last)) end
end
return 1
