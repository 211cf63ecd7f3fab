-- Gives a waiting job another priority, or another time.
-- ARGV: id, queue, what ('priority' or 'due'), value: the priority; ms since 1970, '+<ms>' from now, or '' for at once.
-- Reply: {state it was in, '' where it is not known; 1 when something was done}
local id, queue, what, value = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local mkey = P .. 'meta:' .. id
local m = meta_of(id, 'state', 'held', 'priority')
local state
for _, pair in ipairs(WAITING) do
  if redis.call('ZSCORE', P .. pair[1] .. ':' .. queue, id) then state = pair[2] end
end
if not state then return {m[1] or '', 0} end
if what == 'priority' then
  redis.call('HSET', mkey, 'priority', value)
  local key = state == 'ready' and P .. 'ready:' .. queue or m[2] and P .. 'held:' .. m[2]
  local score = key and redis.call('ZSCORE', key, id)
  if score then soft('ZADD', key, int(tonumber(score) % BAND + band(tonumber(value))), id) end
  note(id, 'reprioritized', value)
  count(queue, 'reprioritized', 1)
  return {state, 1}
end
local due = tonumber(value)
if string.sub(value, 1, 1) == '+' then due = NOW + tonumber(string.sub(value, 2)) end
if state == 'parked' then return {state, 0} end
note(id, 'rescheduled', due and int(due) or 'now')
count(queue, 'rescheduled', 1)
if state == 'blocked' and not m[2] then -- it goes there once those are done that it waits for
  redis.call('HSET', mkey, 'due', due and int(due) or '0')
  return {state, 1}
end
take_waiting(queue, id)
redis.call('HDEL', mkey, 'held')
make_due(queue, id, due)
return {state, 1}
