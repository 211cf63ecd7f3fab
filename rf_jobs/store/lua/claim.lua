-- Says in which shard something is, unless that was said before. ARGV: what, shard, ...
-- Reply: for each, in which shard it is
local found = {}
for i = 1, #ARGV, 2 do
  soft('HSETNX', P .. 'homes', ARGV[i], ARGV[i + 1])
  found[#found + 1] = tonumber(soft('HGET', P .. 'homes', ARGV[i])) or -1
end
return found
