-- Does what earlier scripts left in the outbox, a bounded part of it, oldest first; and closes batches whose dispatch nobody has
-- completed.
-- Asks after members that other shards should have.
-- ARGV: retention (8 numbers), ms after which a dispatch is taken for abandoned. Reply: {effects, left in the outbox}
retained = retention(1)
from_outbox = true
repeat
  local items = soft('LPOP', P .. 'outbox', 50) or {}
  for _, item in ipairs(items) do
    local ok, what = pcall(cjson.decode, item)
    if ok and type(what) == 'table' then WORK[#WORK + 1] = what end
  end
until not do_work() or #items == 0
local unsealed = P .. 'batches:unsealed'
for _, batch in ipairs(soft('ZRANGEBYSCORE', unsealed, '-inf', int(NOW - tonumber(ARGV[9])), 'LIMIT', 0, 20)) do
  soft('ZREM', unsealed, batch)
  if soft('HSETNX', P .. 'batch:' .. batch, 'sealed', int(NOW)) == 1 then
    soft('HSET', P .. 'batch:' .. batch, 'abandoned', 1)
    look_at(batch)
  end
end
-- Members that were to come from other shards, and of which nothing was heard: whoever dispatched them may have died.
local expecting = P .. 'batches:expecting'
for _, batch in ipairs(soft('ZRANGEBYSCORE', expecting, '-inf', int(NOW - tonumber(ARGV[9])), 'LIMIT', 0, 20)) do
  local asked = {}
  for _, member in ipairs(soft('HKEYS', P .. 'expected:' .. batch)) do
    local shard, there = abroad(member)
    if shard then
      asked[shard] = asked[shard] or {}
      table.insert(asked[shard], there)
    end
  end
  for shard, ids in pairs(asked) do send(shard, 'verify', ids, batch) end
  if next(asked) then soft('ZADD', expecting, int(NOW), batch) else soft('ZREM', expecting, batch) end
end
return {EFFECTS, run_work()}
