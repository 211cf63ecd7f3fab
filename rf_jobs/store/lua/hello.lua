-- First contact. ARGV: schema version, a fresh instance id, into how many shards the namespace is divided, and which of them this is.
-- Reply: {schema version, instance id, shards, number} of the store, which has one shard unless it was made with more.
redis.call('HSETNX', P .. 'server', 'schema', ARGV[1])
if redis.call('HSETNX', P .. 'server', 'instance', ARGV[2]) == 1 and ARGV[3] ~= '1' then
  redis.call('HSET', P .. 'server', 'shards', ARGV[3], 'shard', ARGV[4])
end
local m = redis.call('HMGET', P .. 'server', 'schema', 'instance', 'shards', 'shard')
return {m[1], m[2], m[3] or '1', m[4] or m[3] and ARGV[4] or '0'}
