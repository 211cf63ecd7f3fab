-- Makes batches, before their members are dispatched. Safe to send twice.
-- ARGV: for each batch: id, its outer batch or '', n, then n times: field, value.
-- Reply: '', 'known' where the first of them is there already and its dispatch is complete, or what its outer batch is that takes
-- no more members: unknown, cancelled, or its state; abandoned where its own dispatch was never completed
-- and it has ended for that. Behind it: effects, left in the outbox, sent to other shards
local i = 1
local first = soft('HMGET', P .. 'batch:' .. ARGV[1], 'sealed', 'abandoned')
if first[1] then
  -- They are there already: who expects them in another shard hears so.
  local at = 1
  while at <= #ARGV do
    local away, there = abroad(ARGV[at + 1])
    if away then send(away, 'unexpect', there, {ARGV[at]}, false) end
    at = at + 3 + 2 * tonumber(ARGV[at + 2])
  end
  return {first[2] and 'abandoned' or 'known', EFFECTS, run_work()}
end
if ARGV[2] ~= '' and not abroad(ARGV[2]) and redis.call('EXISTS', P .. 'batch:' .. ARGV[1]) == 0 then
  local shut = closed(ARGV[2])
  if shut then return {shut, EFFECTS, 0} end
end
while i <= #ARGV do
  local id, outer, n = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local key = P .. 'batch:' .. id
  local away, there = abroad(outer)
  local is_new = soft('HSETNX', key, 'state', 'running') == 1
  if away then send(away, is_new and 'join' or 'unexpect', there, {id}, false) end
  if is_new then
    soft('HSET', key, 'created', int(NOW), 'total', 0, unpack(ARGV, i + 3, i + 2 + 2 * n))
    soft('ZADD', P .. 'batches', int(NOW), id)
    soft('ZADD', P .. 'batches:open', int(NOW), id)
    soft('ZADD', P .. 'batches:unsealed', int(NOW), id)
    if outer ~= '' then
      local links = soft('HGET', key, 'links') or ''
      soft('HSET', key, 'links', links .. ' b' .. outer)
      if not away and soft('SADD', P .. 'pending:' .. outer, id) == 1 then soft('HINCRBY', P .. 'batch:' .. outer, 'total', 1) end
    end
  end
  i = i + 3 + 2 * n
end
return {'', EFFECTS, run_work()}
