-- Says in which shard something is, unless that was said before. ARGV: what, shard, ...
-- Reply: for each, in which shard it is
local found = {}
for i = 1, #ARGV, 2 do
  redis.call('HSETNX', P .. 'homes', ARGV[i], ARGV[i + 1])
  found[#found + 1] = tonumber(redis.call('HGET', P .. 'homes', ARGV[i]))
end
return found
