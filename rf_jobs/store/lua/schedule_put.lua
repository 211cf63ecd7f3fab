-- Adds schedules, or changes those that are there. Safe to send twice: what is there already is left as it is.
-- ARGV: source (code or api), scheduler (for code: who says so), mode, ms after which what no code names is orphaned, then groups of:
--   name, revision, timing (a digest of when it runs), definition (JSON), next tick, when that is due; both '' where it has none.
--   mode: 'put', or 'keep' for the scheduler that says now and then what its code has: it changes nothing that a scheduler has
--   put that still lives.
-- Reply: for each 0 same, 1 added, 2 changed, -1 refused: the code has one of this name (for api)
local source, scheduler, mode, orphan = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local found = {}
for i = 5, #ARGV, 6 do
  found[#found + 1] = redis.call('HMGET', P .. 'schedule:' .. ARGV[i], 'rev', 'timing', 'source', 'seen', 'orphaned', 'owner', 'paused', 'due')
end
local head = redis.call('ZRANGE', P .. 'schedules', 0, 0, 'WITHSCORES')
local soonest = tonumber(head[2] or '') or math.huge
local sooner = false
local replies = {}

local function waits_for(name, due)
  redis.call('ZADD', P .. 'schedules', due == '' and '+inf' or due, name)
  if due ~= '' and tonumber(due) < soonest then sooner = true end
end

local function put(i, m)
  local name, rev, timing, definition, tick, due = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  local key = P .. 'schedule:' .. name
  local theirs = m[1] and m[3] == 'code' and not m[5] and NOW - number(m[4]) <= orphan
  if source == 'api' and theirs then return -1 end
  if not m[1] then
    redis.call('HSET', key, 'created', int(NOW), 'rev', rev, 'timing', timing, 'def', definition, 'next', tick, 'due', due,
      'source', source, 'owner', scheduler, 'seen', int(NOW))
    waits_for(name, due)
    return 1
  end
  redis.call('HSET', key, 'seen', int(NOW))
  if m[5] and source == 'code' then
    redis.call('HDEL', key, 'orphaned')
    if not m[7] then waits_for(name, m[8] or '') end
  end
  if m[1] == rev and m[3] == source then return 0 end
  if mode == 'keep' and m[6] ~= scheduler and redis.call('EXISTS', P .. 'scheduler:' .. (m[6] or '')) == 1 then return 0 end
  redis.call('HSET', key, 'rev', rev, 'timing', timing, 'def', definition, 'source', source, 'owner', scheduler, 'changed', int(NOW))
  redis.call('HDEL', key, 'error', 'orphaned')
  if m[2] ~= timing then
    redis.call('HSET', key, 'next', tick, 'due', due)
    if not m[7] then waits_for(name, due) end
  elseif m[5] and not m[7] then
    waits_for(name, m[8] or '')
  end
  return 2
end

for at, m in ipairs(found) do replies[at] = put(6 * at - 1, m) end
if sooner then redis.call('PUBLISH', P .. 'schedules:sooner', '') end
return replies
