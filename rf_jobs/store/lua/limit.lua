-- Defines a limit, or changes it while jobs run.
-- ARGV: name, number of fields to remove, fields, number of fields to set, field, value ... Reply: 1
local key = P .. 'limit:' .. ARGV[1]
local at = 3 + tonumber(ARGV[2])
if at > 3 then redis.call('HDEL', key, unpack(ARGV, 3, at - 1)) end
local n = 2 * tonumber(ARGV[at])
if n > 0 then redis.call('HSET', key, unpack(ARGV, at + 1, at + n)) end
redis.call('SADD', P .. 'limits', ARGV[1])
-- Whoever fetches next lets go what fits under it now.
for _, ref in ipairs(redis.call('SMEMBERS', P .. 'refs:' .. ARGV[1])) do redis.call('ZADD', P .. 'timers', int(NOW), ref) end
return 1
