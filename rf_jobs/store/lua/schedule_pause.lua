-- Pauses a schedule, or lets it go on from the next tick on: what came meanwhile was not missed, it was not wanted.
-- ARGV: name, 1 or 0, revision, next tick, when that is due ('' for none). Reply: 1 done, 0 it was so already, -1 unknown,
-- -2 another revision (it was changed meanwhile: look again)
local key = P .. 'schedule:' .. ARGV[1]
local m = soft('HMGET', key, 'rev', 'paused', 'orphaned')
soft('ZCARD', P .. 'schedules')
if not m[1] then return -1 end
if ARGV[2] == '1' then
  if m[2] then return 0 end
  soft('HSET', key, 'paused', int(NOW))
  soft('ZADD', P .. 'schedules', '+inf', ARGV[1])
  return 1
end
if not m[2] then return 0 end
if m[1] ~= ARGV[3] then return -2 end
soft('HDEL', key, 'paused')
soft('HSET', key, 'next', ARGV[4], 'due', ARGV[5])
if not m[3] then
  soft('ZADD', P .. 'schedules', ARGV[5] ~= '' and ARGV[5] or '+inf', ARGV[1])
  redis.call('PUBLISH', P .. 'schedules:sooner', '')
end
return 1
