-- Counts a failed attempt of a class for its circuit breaker.
-- ARGV: class, most failures, per ms, cooldown ms. Reply: 1 where that opened it.
local class, most, per, cooldown = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local key, tripped = P .. 'failures:' .. class, P .. 'tripped:' .. class
local scope = 'class:' .. class
local held = soft('HGET', P .. 'holds', scope)
if held and (held == '0' or number(held) > NOW) then return 0 end
if redis.call('EXISTS', tripped) == 0 then
  soft('LPUSH', key, int(NOW))
  soft('LTRIM', key, 0, most - 1)
  redis.call('PEXPIRE', key, int(per))
  local oldest = soft('LINDEX', key, most - 1)
  if not oldest or tonumber(oldest) < NOW - per then return 0 end
end
redis.call('UNLINK', key)
-- The first failure soon after the cooldown opens it again.
redis.call('SET', tripped, int(NOW), 'PX', int(cooldown + per))
soft('HSET', P .. 'holds', scope, int(NOW + cooldown))
soft('ZADD', P .. 'timers', int(NOW + cooldown), '!' .. scope)
return 1
