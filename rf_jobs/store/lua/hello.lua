-- First contact. ARGV: schema version, a fresh instance id, into how many shards the namespace is divided.
-- Reply: {schema version, instance id, shards} of the store, which has one shard unless it was made with more.
redis.call('HSETNX', P .. 'server', 'schema', ARGV[1])
if redis.call('HSETNX', P .. 'server', 'instance', ARGV[2]) == 1 and ARGV[3] ~= '1' then
  redis.call('HSET', P .. 'server', 'shards', ARGV[3])
end
local m = redis.call('HMGET', P .. 'server', 'schema', 'instance', 'shards')
return {m[1], m[2], m[3] or '1'}
