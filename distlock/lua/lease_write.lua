-- Run commands one after the other, only while the lease is the caller's and all at one instant.
-- USES: _guard
-- KEYS: lease [key ...]
-- ARGV: owner token, for each command: count, words
-- RETURNS: {answer ...}
local answers, at = {}, 1
while at <= #ARGV do
  local last = at + ARGV[at]
  answers[#answers + 1] = redis.call(unpack(ARGV, at + 1, last))
  at = last + 1
end
return answers
