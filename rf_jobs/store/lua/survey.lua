-- Everything an exporter or an operator asks of all queues at one instant, at a cost that does not grow with the jobs.
-- Reads only. Reply: {NOW, ledger (flat), paused, queues, instance, per queue: name, nine cards, oldest ready score per
-- band (4), oldest running start, next due, oldest death}
local out = {}
local FAMILIES = {'ready', 'later', 'blocked', 'parked', 'running', 'done', 'dead', 'cancelled', 'expired'}
local queues = redis.call('SMEMBERS', P .. 'queues')
table.sort(queues)
for _, queue in ipairs(queues) do
  out[#out + 1] = queue
  for _, family in ipairs(FAMILIES) do out[#out + 1] = redis.call('ZCARD', P .. family .. ':' .. queue) end
  for b = 0, 3 do
    local head = redis.call('ZRANGEBYSCORE', P .. 'ready:' .. queue, int(b * BAND), '(' .. int((b + 1) * BAND),
      'WITHSCORES', 'LIMIT', 0, 1)
    out[#out + 1] = head[2] or ''
  end
  local first = redis.call('ZRANGE', P .. 'running:' .. queue, 0, 49)
  local oldest = ''
  for _, id in ipairs(first) do
    local started = redis.call('HGET', P .. 'meta:' .. id, 'epoch')
    if started and (oldest == '' or tonumber(started) < tonumber(oldest)) then oldest = started end
  end
  out[#out + 1] = oldest
  local head = redis.call('ZRANGE', P .. 'later:' .. queue, 0, 0, 'WITHSCORES')
  out[#out + 1] = head[2] or ''
  head = redis.call('ZRANGE', P .. 'dead:' .. queue, 0, 0, 'WITHSCORES')
  out[#out + 1] = head[2] or ''
end
return {NOW, redis.call('HGETALL', LEDGER), redis.call('SMEMBERS', P .. 'paused'), queues,
  redis.call('HGET', P .. 'server', 'instance') or '', out}
