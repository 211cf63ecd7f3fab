-- Removes jobs that wait in one of a queue's sets, some at a time; they count as cancelled.
-- ARGV: queue, family (ready, later, parked, blocked), limit. Reply: the ids that were removed.
local queue, family = ARGV[1], ARGV[2]
local popped = redis.call('ZPOPMIN', P .. family .. ':' .. queue, tonumber(ARGV[3]))
local ids = {}
for i = 1, #popped, 2 do ids[#ids + 1] = popped[i] end
announce(ids, 'cancelled')
erase(ids)
count(queue, 'cancelled', #ids)
count(queue, 'evicted_cancelled', #ids)
return ids
