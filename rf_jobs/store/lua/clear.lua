-- Removes jobs that wait in one of a queue's sets, some at a time; they count as cancelled.
-- ARGV: queue, family (ready, later, parked, blocked), limit, retention (8 numbers).
-- Reply: {the ids that were removed, effects, left in the outbox}
local queue, family = ARGV[1], ARGV[2]
retained = retention(4)
local popped = redis.call('ZPOPMIN', P .. family .. ':' .. queue, tonumber(ARGV[3]))
local ids = {}
for i = 1, #popped, 2 do
  local id = popped[i]
  ids[#ids + 1] = id
  local m = meta_of(id, 'links', 'held')
  if m[2] then soft('ZREM', P .. 'held:' .. m[2], id) end
  if m[1] then WORK[#WORK + 1] = {'over', id, 'cancelled', m[1]} end
end
announce(ids, 'cancelled')
erase(ids)
count(queue, 'cancelled', #ids)
count(queue, 'evicted_cancelled', #ids)
return {ids, EFFECTS, run_work()}
