-- Another shard has done what was said to it. ARGV: that shard, the id of the last word that it has done.
-- The stream stays when it is empty: its ids go on from there.
local key = P .. 'outbox:' .. ARGV[1]
local done = {}
for _, entry in ipairs(soft('XRANGE', key, '-', ARGV[2], 'COUNT', 2000)) do done[#done + 1] = entry[1] end
if #done > 0 then redis.call('XDEL', key, unpack(done)) end
if soft('XLEN', key) == 0 then soft('SREM', P .. 'outboxes', ARGV[1]) end
return #done
