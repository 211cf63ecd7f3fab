-- Keeps something with a running job: progress or a checkpoint. ARGV: family, id, token, value. Reply: 1, or 0: stale.
local id = ARGV[2]
if redis.call('HGET', P .. 'meta:' .. id, 'token') ~= ARGV[3] then return 0 end
redis.call('SET', P .. ARGV[1] .. ':' .. id, ARGV[4])
redis.call('SADD', P .. 'extras', id)
return 1
