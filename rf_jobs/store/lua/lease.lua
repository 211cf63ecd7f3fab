-- Holds, renews or gives up something that one process at a time has. ARGV: key family, holder, ms (0 gives it up).
-- Reply: 1, or 0: another has it.
local key = P .. ARGV[1]
local holder = redis.call('GET', key)
if holder and holder ~= ARGV[2] then return 0 end
if tonumber(ARGV[3]) > 0 then
  redis.call('SET', key, ARGV[2], 'PX', ARGV[3])
else
  redis.call('UNLINK', key)
end
return 1
