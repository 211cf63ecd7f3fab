-- About how much memory each queue takes: its structures, and of each state a few of the oldest and the newest jobs times
-- their number. Reads only; the cost grows with the queues, not with the jobs. Reply: flat queue, bytes
local FAMILIES = {'ready', 'later', 'blocked', 'parked', 'running', 'done', 'dead', 'cancelled', 'expired'}
local EACH_END = 2
local function usage(key) return tonumber(redis.call('MEMORY', 'USAGE', key) or 0) end
local out = {}
for _, queue in ipairs(redis.call('SMEMBERS', P .. 'queues')) do
  local bytes = 0
  for _, family in ipairs(FAMILIES) do
    local key = P .. family .. ':' .. queue
    local n = redis.call('ZCARD', key)
    if n > 0 then
      local ids = redis.call('ZRANGE', key, 0, EACH_END - 1)
      for _, id in ipairs(redis.call('ZREVRANGE', key, 0, EACH_END - 1)) do ids[#ids + 1] = id end
      local sampled = 0
      for _, id in ipairs(ids) do
        for _, part in ipairs({'job:', 'meta:', 'errors:', 'timeline:', 'result:'}) do sampled = sampled + usage(P .. part .. id) end
      end
      bytes = bytes + usage(key) + sampled / #ids * n
    end
  end
  out[#out + 1] = queue
  out[#out + 1] = int(bytes)
end
return out
