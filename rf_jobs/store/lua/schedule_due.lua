-- Hands due schedules to a scheduler, which also says that it lives. They are out of the others' sight for a moment; if nothing
-- comes of it (it died), they are in sight again.
-- ARGV: scheduler, ms for which it is believed alive, ms out of sight, limit, then its facts: field, value, ...
-- Reply: {NOW, when the next schedule is due ('' for never), flat: name, next tick, revision}
local me, limit = ARGV[1], tonumber(ARGV[4])
local names = soft('ZRANGEBYSCORE', P .. 'schedules', '-inf', int(NOW), 'LIMIT', 0, limit)
local out, hidden, gone = {}, {}, {}
for _, name in ipairs(names) do
  local m = soft('HMGET', P .. 'schedule:' .. name, 'next', 'rev', 'due')
  if m[2] and m[1] and m[1] ~= '' then
    if not string.match(m[1], '^%-?%d+$') or #m[1] > 15 then -- somebody's edit must not stop the others
      m[1] = int(number(m[3]) > 0 and number(m[3]) or NOW)
      redis.call('HSET', P .. 'schedule:' .. name, 'next', m[1])
    end
    out[#out + 1], out[#out + 2], out[#out + 3] = name, m[1], m[2]
    hidden[#hidden + 1] = int(NOW + tonumber(ARGV[3]))
    hidden[#hidden + 1] = name
  elseif m[2] then
    hidden[#hidden + 1] = '+inf'
    hidden[#hidden + 1] = name
  else
    gone[#gone + 1] = name
  end
end
local until_ = int(NOW + tonumber(ARGV[2]))
soft('ZADD', P .. 'schedulers', until_, me)
soft('ZREMRANGEBYSCORE', P .. 'schedulers', '-inf', '(' .. int(NOW - 60000))
local facts = {'beat', int(NOW)}
for i = 5, #ARGV do facts[#facts + 1] = ARGV[i] end
soft('HSET', P .. 'scheduler:' .. me, unpack(facts))
redis.call('PEXPIRE', P .. 'scheduler:' .. me, ARGV[2])
many('ZREM', P .. 'schedules', gone)
many('ZADD', P .. 'schedules', hidden)
local head = soft('ZRANGE', P .. 'schedules', 0, 0, 'WITHSCORES')
return {NOW, head[2] and head[2] ~= 'inf' and head[2] or '', out}
