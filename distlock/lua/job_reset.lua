-- Delete some keys of a pipeline that nobody works on; sent page by page, the record's page first.
-- KEYS: job lease handlers [key ...]
-- ARGV: job(id)
-- RETURNS: 1 deleted, 0 another job has begun, -1 a copy is alive
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local job = redis.call('HGET', KEYS[1], 'id')
if redis.call('EXISTS', KEYS[2]) == 1 then return -1 end
if redis.call('ZCOUNT', KEYS[3], '(' .. now, '+inf') > 0 then return -1 end
if job and job ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[1])
if #KEYS > 3 then redis.call('UNLINK', unpack(KEYS, 4)) end
return 1
