-- Stops or resumes the fetching from a queue. ARGV: queue, '1' or '0'. Reply: 1 when that changed something.
local queue = ARGV[1]
if ARGV[2] == '1' then
  soft('SADD', P .. 'queues', queue)
  return soft('SADD', P .. 'paused', queue)
end
local changed = soft('SREM', P .. 'paused', queue)
wake(queue, 4)
return changed
