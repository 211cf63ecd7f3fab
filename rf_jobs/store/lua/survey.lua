-- Everything an exporter or an operator asks of all queues at one instant, at a cost that grows with the queues and the
-- workers, and not with the jobs.
-- Reads only. Reply: {NOW, ledger (flat), paused, queues, instance, per queue: name, nine cards, oldest ready score per
-- band (4), oldest running start, next due, oldest death}
local out = {}
local FAMILIES = {'ready', 'later', 'blocked', 'parked', 'running', 'done', 'dead', 'cancelled', 'expired'}
local queues = redis.call('SMEMBERS', P .. 'queues')
table.sort(queues)
-- Each live worker says how long its oldest job of each queue has run.
local tells, begun = {}, {}
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', P .. 'workers', int(NOW), '+inf')) do
  local said = redis.call('HMGET', P .. 'worker:' .. worker, 'beat', 'oldest')
  if said[2] then tells[worker] = true end
  for queue, age in string.gmatch(said[2] or '', '([^,=]+)=(%d+)') do
    begun[queue] = math.min(begun[queue] or NOW, (tonumber(said[1]) or NOW) - age)
  end
end
for _, queue in ipairs(queues) do
  out[#out + 1] = queue
  for _, family in ipairs(FAMILIES) do out[#out + 1] = redis.call('ZCARD', P .. family .. ':' .. queue) end
  for b = 0, 3 do
    local head = redis.call('ZRANGEBYSCORE', P .. 'ready:' .. queue, int(b * BAND), '(' .. int((b + 1) * BAND),
      'WITHSCORES', 'LIMIT', 0, 1)
    out[#out + 1] = head[2] or ''
  end
  -- Who sends no such heartbeats, a hand-written consumer, has its leases looked at: a few, those that end first.
  local first = redis.call('ZRANGE', P .. 'running:' .. queue, 0, 49)
  local oldest = #first > 0 and begun[queue]
  for _, id in ipairs(first) do
    local m = redis.pcall('HMGET', P .. 'meta:' .. id, 'epoch', 'token')
    local epoch = not m.err and tonumber(m[1] or '')
    if epoch and not tells[string.match(m[2] or '', '^[^.]*')] then oldest = math.min(oldest or epoch, epoch) end
  end
  out[#out + 1] = oldest and int(oldest) or ''
  local head = redis.call('ZRANGE', P .. 'later:' .. queue, 0, 0, 'WITHSCORES')
  out[#out + 1] = head[2] or ''
  head = redis.call('ZRANGE', P .. 'dead:' .. queue, 0, 0, 'WITHSCORES')
  out[#out + 1] = head[2] or ''
end
return {NOW, redis.call('HGETALL', LEDGER), redis.call('SMEMBERS', P .. 'paused'), queues,
  redis.call('HGET', P .. 'server', 'instance') or '', out}
