-- Keeps something with a running job: progress or a checkpoint. ARGV: family, id, token, value. Reply: 1, or 0: stale.
local id = ARGV[2]
local m = redis.call('HMGET', P .. 'meta:' .. id, 'state', 'token')
if m[1] ~= 'running' or m[2] ~= ARGV[3] then return 0 end
redis.call('SET', P .. ARGV[1] .. ':' .. id, ARGV[4])
redis.call('SADD', P .. 'extras', id)
return 1
