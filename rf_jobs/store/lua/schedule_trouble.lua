-- A due schedule that this scheduler can't run: the reason is kept, and others may try after a while.
-- ARGV: name, revision, tick that is waited for, ms, error. Reply: 1, or 0: it is not as it was
local key = P .. 'schedule:' .. ARGV[1]
local m = soft('HMGET', key, 'rev', 'next', 'paused', 'orphaned')
soft('ZCARD', P .. 'schedules')
if m[1] ~= ARGV[2] or m[2] ~= ARGV[3] or m[3] or m[4] then return 0 end
soft('HSET', key, 'error', ARGV[5], 'failed', int(NOW))
soft('ZADD', P .. 'schedules', int(NOW + tonumber(ARGV[4])), ARGV[1])
return 1
