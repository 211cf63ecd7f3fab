-- Makes batches, before their members are dispatched. Safe to send twice.
-- ARGV: for each batch: id, its outer batch or '', n, then n times: field, value.
-- Reply: 1, or 0 where the first of them is there already and its dispatch is complete.
local i = 1
local complete = redis.call('HGET', P .. 'batch:' .. ARGV[1], 'sealed')
if complete then return 0 end
while i <= #ARGV do
  local id, outer, n = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local key = P .. 'batch:' .. id
  if redis.call('HSETNX', key, 'state', 'running') == 1 then
    redis.call('HSET', key, 'created', int(NOW), 'total', 0, unpack(ARGV, i + 3, i + 2 + 2 * n))
    redis.call('ZADD', P .. 'batches', int(NOW), id)
    redis.call('ZADD', P .. 'batches:open', int(NOW), id)
    redis.call('ZADD', P .. 'batches:unsealed', int(NOW), id)
    if outer ~= '' then
      local links = redis.call('HGET', key, 'links') or ''
      redis.call('HSET', key, 'links', links .. ' b' .. outer)
      if redis.call('SADD', P .. 'pending:' .. outer, id) == 1 then redis.call('HINCRBY', P .. 'batch:' .. outer, 'total', 1) end
    end
  end
  i = i + 3 + 2 * n
end
return 1
