-- What this shard has to say to others. Reads only. ARGV: at most so many words to each.
-- Reply: for each that there is something for: shard, {id, word, id, word, ...}, the oldest first
local found = {}
for _, shard in ipairs(soft('SMEMBERS', P .. 'outboxes')) do
  local words = {}
  for _, entry in ipairs(redis.call('XRANGE', P .. 'outbox:' .. shard, '-', '+', 'COUNT', ARGV[1])) do
    words[#words + 1] = entry[1]
    words[#words + 1] = entry[2][2]
  end
  if #words > 0 then
    found[#found + 1] = shard
    found[#found + 1] = words
  end
end
return found
