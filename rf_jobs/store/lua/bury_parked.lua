-- Buries jobs that were parked longer than allowed.
-- ARGV: queue, older than ms, limit, keep dead count, keep dead age ms, error JSON. Reply: ids.
local queue = ARGV[1]
local key = P .. 'parked:' .. queue
local ids = redis.call('ZRANGEBYSCORE', key, '-inf', int(NOW - tonumber(ARGV[2])), 'LIMIT', 0, tonumber(ARGV[3]))
for _, id in ipairs(ids) do
  redis.call('ZREM', key, id)
  keep_error(id, ARGV[6])
  conclude(queue, 'dead', id, 'unknown_class', {tonumber(ARGV[4]), tonumber(ARGV[5])})
end
return ids
