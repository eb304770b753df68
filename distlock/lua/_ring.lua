-- Wake one handler that waits: the longest waiting one that still listens.
local function ring(bell)
  repeat
    local first = redis.call('ZPOPMIN', bell)[1]
  until not first or redis.call('PUBLISH', bell .. ':' .. first, '') > 0
end
