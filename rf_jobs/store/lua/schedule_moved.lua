-- Forgets schedules that are in another shard from now on, since their jobs are. What is in code goes before what an API put.
-- ARGV: source, names. Reply: how many there were
local moved = 0
for i = 2, #ARGV do
  local source = soft('HGET', P .. 'schedule:' .. ARGV[i], 'source')
  if source and (source == ARGV[1] or ARGV[1] == 'code') then
    redis.call('UNLINK', P .. 'schedule:' .. ARGV[i])
    soft('ZREM', P .. 'schedules', ARGV[i])
    moved = moved + 1
  end
end
return moved
