-- Does what another shard said, in its order: each word once, whoever brings it how often. Bounded: what a script can't do at
-- once is to be brought again.
-- ARGV: retention (8 numbers), this shard, the one that speaks, then id (of the stream's entry), word (JSON), ...
-- Reply: {effects, left in the outbox, sent to other shards, the last id that is done}
retained = retention(1)
OWN, FROM = ARGV[9], ARGV[10]
local key = P .. 'heard'
local last = soft('HGET', key, FROM) or '0-0'

local function is_after(id, other)
  local ms, number_of = string.match(id, '^(%d+)-(%d+)$')
  local other_ms, other_number = string.match(other, '^(%d+)-(%d+)$')
  ms, other_ms = tonumber(ms), tonumber(other_ms) or 0
  return ms > other_ms or ms == other_ms and tonumber(number_of) > (tonumber(other_number) or 0)
end

local ids, words = {}, {}
for i = 11, #ARGV, 2 do
  if is_after(ARGV[i], last) then
    local ok, word = pcall(cjson.decode, ARGV[i + 1])
    ids[#ids + 1] = ARGV[i]
    words[#words + 1] = ok and type(word) == 'table' and heard[word[1]] and word or {'unknown', ARGV[i + 1]}
  end
end
outdate(words)
for i, word in ipairs(words) do
  last = ids[i]
  try(word, heard[word[1]], word[2], word[3], word[4], word[5], word[6])
  if not do_work() then break end -- what is too much goes to the outbox, where it is looked at again before it is done
end
soft('HSET', key, FROM, last)
local left, further = run_work()
return {EFFECTS, left, further, last}
