-- Asks to be told on the channel `final` when a job is over. ARGV: id. Reply: its state if it is over, '' if not, or
-- '?' if it is not known.
local id = ARGV[1]
local state = redis.call('HGET', P .. 'meta:' .. id, 'state')
if state == 'completed' or state == 'dead' or state == 'cancelled' or state == 'expired' then return state end
if redis.call('EXISTS', P .. 'job:' .. id) == 0 then return '?' end
redis.call('SADD', P .. 'watched', id)
return ''
