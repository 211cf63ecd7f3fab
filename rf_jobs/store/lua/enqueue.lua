-- Adds jobs. Idempotent by id.
-- ARGV: groups of: queue, priority, when, n, then n times: id, envelope.
--   when: '' = now; '+<ms>' = that much from now; '<ms>' = at that time (server's clock). '!<ms>' behind it: if it has
--   not started within so much from now it expires.
-- Reply: {NOW, positions (1-based, over all groups) of the jobs that were there already}
local positions = {}
local position, i = 0, 1
-- Nothing is written before it is sure that all can be: these raise where a key is no sorted set.
while i <= #ARGV do
  redis.call('ZCARD', P .. 'ready:' .. ARGV[i])
  redis.call('ZCARD', P .. 'later:' .. ARGV[i])
  i = i + 4 + 2 * tonumber(ARGV[i + 3])
end
i = 1
while i <= #ARGV do
  local queue, priority, n = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 3])
  local when, valid = string.match(ARGV[i + 2], '^([^!]*)!?(%d*)$')
  i = i + 4
  local fresh = {}
  for _ = 1, n do
    position = position + 1
    local id = ARGV[i]
    if redis.call('SET', P .. 'job:' .. id, ARGV[i + 1], 'NX') then
      fresh[#fresh + 1] = id
    else
      positions[#positions + 1] = position
    end
    i = i + 2
  end
  local added = #fresh
  if added > 0 then
    local due
    if when == '' then
      due = nil
    elseif string.sub(when, 1, 1) == '+' then
      due = NOW + tonumber(string.sub(when, 2))
    else
      due = tonumber(when)
    end
    if priority ~= 1 then
      for k = 1, added do redis.call('HSET', P .. 'meta:' .. fresh[k], 'priority', priority) end
    end
    if valid ~= '' then
      for k = 1, added do redis.call('HSET', P .. 'meta:' .. fresh[k], 'exp', int(NOW + tonumber(valid))) end
    end
    local args = {}
    if due and due > NOW then
      local later = P .. 'later:' .. queue
      local head = redis.call('ZRANGE', later, 0, 0, 'WITHSCORES')
      for k = 1, added do
        args[2 * k - 1] = int(due)
        args[2 * k] = fresh[k]
      end
      many('ZADD', later, args)
      count(queue, 'scheduled', added)
      -- An idle worker sleeps until the next job is due: wake one if that has become sooner.
      if not head[2] or due < tonumber(head[2]) then wake(queue, 1) end
    else
      local first = reserve(added) + band(priority)
      for k = 1, added do
        args[2 * k - 1] = int(first + k - 1)
        args[2 * k] = fresh[k]
      end
      many('ZADD', P .. 'ready:' .. queue, args)
      wake(queue, added)
    end
    redis.call('SADD', P .. 'queues', queue)
    count(queue, 'dispatched', added)
  end
  if n > added then count(queue, 'deduplicated', n - added) end
end
return {NOW, positions}
