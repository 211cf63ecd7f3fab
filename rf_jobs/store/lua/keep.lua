-- Keeps something with a running job: a checkpoint, or what a step of it answered with.
-- ARGV: family, id, token, value, name of the step ('' where the family has one value). Reply: 1, or 0: stale.
local family, id, field = ARGV[1], ARGV[2], ARGV[5]
if redis.call('HGET', P .. 'meta:' .. id, 'token') ~= ARGV[3] then return 0 end
if field == '' then
  redis.call('SET', P .. family .. ':' .. id, ARGV[4])
else
  redis.call('HSET', P .. family .. ':' .. id, field, ARGV[4])
end
soft('SADD', P .. 'extras', id)
return 1
