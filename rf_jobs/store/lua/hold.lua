-- Stops the start of all jobs of a class, or with a tag, or lets them start again.
-- ARGV: retention (8 numbers), scope (class:NAME or key:TAG), for ms ('0': until resumed, '': resume).
-- Reply: {1 when that changed something, effects, left in the outbox}
retained = retention(1)
local scope, ms = ARGV[9], ARGV[10]
if ms == '' then
  local changed = soft('HDEL', P .. 'holds', scope)
  soft('ZREM', P .. 'timers', '!' .. scope)
  WORK[#WORK + 1] = {'free', '!' .. scope}
  return {changed, EFFECTS, run_work()}
end
local ends = ms == '0' and '0' or int(NOW + tonumber(ms))
local before = soft('HGET', P .. 'holds', scope)
soft('HSET', P .. 'holds', scope, ends)
if ends == '0' then soft('ZREM', P .. 'timers', '!' .. scope)
else soft('ZADD', P .. 'timers', ends, '!' .. scope) end
return {before ~= ends and 1 or 0, EFFECTS, 0}
