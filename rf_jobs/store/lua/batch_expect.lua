-- Members of a batch are about to be dispatched in other shards: it does not end before it has heard of each. Safe to send twice.
-- ARGV: batch, '1' where each is to go behind the last step of the chain, then references to the members.
-- Reply: {what the batch is that takes no more members, '' for nothing; for '1' behind which step each goes}
local batch = ARGV[1]
local shut = closed(batch)
local key, expected, said = P .. 'batch:' .. batch, P .. 'expected:' .. batch, {''}
if shut then
  -- As in admit.lua: what is refused before all of it was there will be missing.
  if shut ~= 'unknown' and soft('HEXISTS', key, 'sealed') == 0 then soft('HSET', key, 'abandoned', 1) end
  return {shut}
end
-- `-` or `+`: whether the batch can do without it; and the step that it goes behind.
local need = soft('HEXISTS', key, 'sealed') == 1 and '-' or '+'
for i = 3, #ARGV do
  local before = ''
  if ARGV[2] == '1' then
    local known = soft('HGET', expected, ARGV[i])
    before = known and string.sub(known, 2) or soft('HGET', key, 'last') or ''
    soft('HSET', key, 'last', ARGV[i])
    said[#said + 1] = before
  end
  soft('HSETNX', expected, ARGV[i], need .. before)
end
soft('ZADD', P .. 'batches:expecting', int(NOW), batch)
soft('ZADD', P .. 'batches:unsealed', 'XX', int(NOW), batch)
return said
