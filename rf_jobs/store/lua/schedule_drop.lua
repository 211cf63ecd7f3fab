-- Removes a schedule; jobs that it has dispatched stay. ARGV: name, ms after which what no code names is orphaned.
-- Reply: 1 done, 0 unknown, -1 refused: a scheduler that lives has it in its code
local key = P .. 'schedule:' .. ARGV[1]
local m = soft('HMGET', key, 'source', 'seen', 'rev', 'orphaned')
soft('ZCARD', P .. 'schedules')
if not m[3] then return 0 end
if m[1] == 'code' and not m[4] and NOW - number(m[2]) <= tonumber(ARGV[2]) then return -1 end
redis.call('UNLINK', key)
soft('ZREM', P .. 'schedules', ARGV[1])
return 1
