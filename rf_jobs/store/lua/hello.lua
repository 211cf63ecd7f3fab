-- First contact. ARGV: schema version, a fresh instance id. Reply: {schema version, instance id} of the store.
redis.call('HSETNX', P .. 'server', 'schema', ARGV[1])
redis.call('HSETNX', P .. 'server', 'instance', ARGV[2])
return redis.call('HMGET', P .. 'server', 'schema', 'instance')
