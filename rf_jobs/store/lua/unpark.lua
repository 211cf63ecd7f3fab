-- Parked jobs back to ready: a worker that knows their class is here. ARGV: queue, then ids. Reply: ids that moved.
local queue = ARGV[1]
local done = {}
for i = 2, #ARGV do
  if redis.call('ZREM', P .. 'parked:' .. queue, ARGV[i]) == 1 then
    redis.call('HDEL', P .. 'meta:' .. ARGV[i], 'reason') -- why it was parked
    done[#done + 1] = ARGV[i]
  end
end
make_ready(queue, done)
count(queue, 'unparked', #done)
return done
