-- Asks to be told of a job: on the channel `final` when it is over, and where `live` is more than 0 on `live:<id>` of
-- whatever changes, for so many ms. ARGV: id, live. Reply: its state if it is over, '' if not, or '?' if it is not known.
local id, ms = ARGV[1], tonumber(ARGV[2])
local state = redis.call('HGET', P .. 'meta:' .. id, 'state')
if state == 'completed' or state == 'dead' or state == 'cancelled' or state == 'expired' then return state end
if redis.call('EXISTS', P .. 'job:' .. id) == 0 then return '?' end
if ms > 0 then
  soft('ZREMRANGEBYSCORE', P .. 'live', '-inf', int(NOW))
  soft('ZADD', P .. 'live', int(NOW + ms), id)
  redis.call('PEXPIRE', P .. 'live', ms)
else
  soft('SADD', P .. 'watched', id)
end
return ''
