-- Adds schedules, or changes those that are there. Safe to send twice: what is there already is left as it is.
-- ARGV: source (code or api), scheduler (of code: whose it is), ms after which what no code names is orphaned, then groups of:
--   name, revision, timing (a digest of when it runs), definition (JSON), next tick, when that is due; both '' where it has none.
-- Reply: for each 0 same, 1 added, 2 changed, -1 refused: the code of a scheduler that lives has one of this name (for api)
local source, scheduler, orphan = ARGV[1], ARGV[2], tonumber(ARGV[3])
local found = {}
for i = 4, #ARGV, 6 do
  found[#found + 1] = soft('HMGET', P .. 'schedule:' .. ARGV[i], 'rev', 'timing', 'source', 'seen', 'orphaned', 'paused', 'due', 'def')
end
local head = soft('ZRANGE', P .. 'schedules', 0, 0, 'WITHSCORES')
local soonest = tonumber(head[2] or '') or math.huge
local sooner = false
local replies = {}

local function wait(name, due)
  soft('ZADD', P .. 'schedules', due == '' and '+inf' or due, name)
  if due ~= '' and tonumber(due) < soonest then sooner = true end
end

local function put(i, m)
  local name, rev, timing, definition, tick, due = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  local key = P .. 'schedule:' .. name
  local known, orphaned, paused = m[1], m[5], m[6]
  if source == 'api' and m[3] == 'code' and not orphaned and NOW - number(m[4]) <= orphan then return -1 end
  soft('HSET', key, 'seen', int(NOW), 'owner', scheduler)
  local damaged = m[8] ~= definition -- by somebody's edit, where the revision is the same
  if known == rev and m[3] == source and not orphaned and not damaged then return 0 end
  soft('HSET', key, 'rev', rev, 'timing', timing, 'def', definition, 'source', source)
  soft('HDEL', key, 'error', 'orphaned')
  local stays = known and m[2] == timing and m[7]
  if not stays then soft('HSET', key, 'next', tick, 'due', due) end
  if not paused and (orphaned or damaged or not stays) then wait(name, stays or due) end
  if known then
    soft('HSET', key, 'changed', int(NOW))
    return known == rev and 0 or 2
  end
  soft('HSET', key, 'created', int(NOW))
  return 1
end

for at, m in ipairs(found) do replies[at] = put(6 * at - 2, m) end
if sooner then redis.call('PUBLISH', P .. 'schedules:sooner', '') end
return replies
