-- Defines a limit, or changes it while jobs run.
-- ARGV: name, number of fields to remove, fields, number of fields to set, field, value ... Reply: 1
local key = P .. 'limit:' .. ARGV[1]
local at = 3 + tonumber(ARGV[2])
if at > 3 then soft('HDEL', key, unpack(ARGV, 3, at - 1)) end
local n = 2 * tonumber(ARGV[at])
if n > 0 then soft('HSET', key, unpack(ARGV, at + 1, at + n)) end
soft('SADD', P .. 'limits', ARGV[1])
-- Whoever fetches next lets go what fits under it now.
for _, ref in ipairs(soft('SMEMBERS', P .. 'refs:' .. ARGV[1])) do soft('ZADD', P .. 'timers', int(NOW), ref) end
return 1
