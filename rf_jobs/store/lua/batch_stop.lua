-- Cancels a batch: what waits is cancelled, what runs is asked to stop.
-- ARGV: retention (8 numbers), id, reason. Reply: {1, or 0 where it was over or is not known; effects; left in the outbox}
retained = retention(1)
local key = P .. 'batch:' .. ARGV[9]
local b = soft('HMGET', key, 'state', 'finished')
if not b[1] or b[2] then return {0, EFFECTS, 0} end
soft('HSET', key, 'stopped', int(NOW))
look_at(ARGV[9]) -- nobody else would, were its last members removed by hand
WORK[#WORK + 1] = {'stop', ARGV[9], ARGV[10], '1'}
return {1, EFFECTS, run_work()}
