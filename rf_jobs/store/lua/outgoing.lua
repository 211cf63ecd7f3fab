-- What this shard has to say to others. Reads only. ARGV: at most so many words to each, how many shards there are.
-- Reply: for each that there is something for: shard, {id, word, id, word, ...}, the oldest first; how many there are in all
local MOST_BYTES = 1048576 -- to each, unless a single word is larger
local found = {}
for _, shard in ipairs(soft('SMEMBERS', P .. 'outboxes')) do
  local words, bytes = {}, 0
  local is_one = string.find(shard, '^%d+$') and tonumber(shard) < tonumber(ARGV[2]) -- unless somebody edited it
  for _, entry in ipairs(is_one and soft('XRANGE', P .. 'outbox:' .. shard, '-', '+', 'COUNT', ARGV[1]) or {}) do
    bytes = bytes + #entry[2][2]
    if #words > 0 and bytes > MOST_BYTES then break end
    words[#words + 1] = entry[1]
    words[#words + 1] = entry[2][2]
  end
  if #words > 0 then
    found[#found + 1] = shard
    found[#found + 1] = words
    found[#found + 1] = soft('XLEN', P .. 'outbox:' .. shard)
  end
end
return found
