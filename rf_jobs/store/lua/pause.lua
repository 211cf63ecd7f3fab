-- Stops or resumes the fetching from a queue. ARGV: queue, '1' or '0'. Reply: 1 when that changed something.
local queue = ARGV[1]
if ARGV[2] == '1' then
  redis.call('SADD', P .. 'queues', queue)
  return redis.call('SADD', P .. 'paused', queue)
end
local changed = redis.call('SREM', P .. 'paused', queue)
wake(queue, 4)
return changed
