-- Buries jobs that were parked longer than allowed.
-- ARGV: queue, older than ms, limit, retention (8 numbers), error JSON. Reply: {ids, effects, left in the outbox}
local queue = ARGV[1]
retained = retention(4)
local key = P .. 'parked:' .. queue
local ids = redis.call('ZRANGEBYSCORE', key, '-inf', int(NOW - tonumber(ARGV[2])), 'LIMIT', 0, tonumber(ARGV[3]))
for _, id in ipairs(ids) do
  redis.call('ZREM', key, id)
  keep_error(id, ARGV[12])
  conclude(queue, 'dead', id, 'unknown_class', retained)
end
return {ids, EFFECTS, run_work()}
