-- Defines a limit, or changes it while jobs run.
-- ARGV: retention (8 numbers), name, number of fields to remove, fields, number of fields to set, field,
--   value ... Reply: {1, effects, left in the outbox}
retained = retention(1)
local key = P .. 'limit:' .. ARGV[9]
local at = 11 + tonumber(ARGV[10])
if at > 11 then redis.call('HDEL', key, unpack(ARGV, 11, at - 1)) end
local n = 2 * tonumber(ARGV[at])
if n > 0 then redis.call('HSET', key, unpack(ARGV, at + 1, at + n)) end
redis.call('SADD', P .. 'limits', ARGV[9])
-- Whoever fetches next lets go what fits under it now.
for _, ref in ipairs(redis.call('SMEMBERS', P .. 'refs:' .. ARGV[9])) do redis.call('ZADD', P .. 'timers', int(NOW), ref) end
return {1, EFFECTS, run_work()}
