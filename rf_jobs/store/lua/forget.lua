-- Removes dead letters for good. ARGV: queue, then ids. Reply: the ids that were removed.
local queue = ARGV[1]
local done = {}
for i = 2, #ARGV do
  if redis.call('ZREM', P .. 'dead:' .. queue, ARGV[i]) == 1 then done[#done + 1] = ARGV[i] end
end
erase(done)
count(queue, 'discarded', #done)
return done
