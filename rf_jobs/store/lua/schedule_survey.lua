-- What an exporter shows of schedules: of those that run next, so many. Reads only.
-- ARGV: how many. Reply: {NOW, schedulers that live, schedules, flat: name, due, ran, succeeded, lag, missed ('' where there is none)}
local out = {}
for _, name in ipairs(redis.call('ZRANGE', P .. 'schedules', 0, tonumber(ARGV[1]) - 1)) do
  local m = redis.call('HMGET', P .. 'schedule:' .. name, 'due', 'ran', 'succeeded', 'lag', 'missed', 'paused', 'orphaned')
  out[#out + 1] = name
  out[#out + 1] = not m[6] and not m[7] and m[1] or ''
  for k = 2, 5 do out[#out + 1] = m[k] or '' end
end
return {NOW, redis.call('ZCOUNT', P .. 'schedulers', int(NOW), '+inf'), redis.call('ZCARD', P .. 'schedules'), out}
