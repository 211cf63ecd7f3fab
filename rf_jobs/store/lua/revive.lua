-- Dead letters back to ready, with all their attempts; the history stays.
-- ARGV: queue, then ids. Reply: the ids that were dead letters of this queue.
local queue = ARGV[1]
local done = {}
for i = 2, #ARGV do
  if redis.call('ZREM', P .. 'dead:' .. queue, ARGV[i]) == 1 then
    redis.call('HSET', P .. 'meta:' .. ARGV[i], 'attempt', 0, 'crashes', 0)
    redis.call('HDEL', P .. 'meta:' .. ARGV[i], 'finished', 'reason', 'first', 'cancel', 'exp')
    note(ARGV[i], 'replayed', '')
    done[#done + 1] = ARGV[i]
  end
end
make_ready(queue, done)
count(queue, 'replayed', #done)
return done
