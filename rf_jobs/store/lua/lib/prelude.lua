-- Shared by all scripts. KEYS[1] is the ledger; every other key has its prefix and so its slot.
-- A script does all its checks before its first write: Redis does not roll back.
local P = string.sub(KEYS[1], 1, -7)
local LEDGER = KEYS[1]
local clock = redis.call('TIME')
local NOW = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function int(n)
  return string.format('%.0f', n)
end

-- Without these nothing is known of a job; whatever else somebody made another type of, jobs can do without.
local VITAL = {
  job = true, ledger = true, ready = true, later = true, running = true, blocked = true, parked = true, dead = true, done = true,
  cancelled = true, expired = true, schedules = true, server = true,
}

-- A command that must not fail, since others' jobs depend on the rest of the script: what is of the wrong type is dropped first.
local function soft(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) and not VITAL[string.match(key, '^[^:]+', #P + 1)] then redis.call('UNLINK', key) end
  return redis.call(command, key, ...)
end

-- Adds to a queue's counter. The only way to the ledger.
local function count(queue, event, n)
  if n ~= 0 then redis.call('HINCRBY', LEDGER, queue .. '|' .. event, n) end
end

-- ZADD / ZREM / UNLINK of many members in calls of bounded length (Lua's stack has a limit).
local function many(command, key, list)
  local n = #list
  if n == 0 then return 0 end
  if n <= 4000 then return soft(command, key, unpack(list)) end
  local total = 0
  for i = 1, n, 4000 do
    total = total + soft(command, key, unpack(list, i, math.min(i + 3999, n)))
  end
  return total
end

-- Fields of a job's meta. Somebody may have edited it: what is no hash any more is dropped, and the job goes on without.
local function meta_of(id, ...)
  local m = redis.pcall('HMGET', P .. 'meta:' .. id, ...)
  if not m.err then return m end
  redis.call('UNLINK', P .. 'meta:' .. id)
  return {}
end

-- A number that was kept as text; 0 where it is none that can be reckoned with.
local function number(value)
  local n = tonumber(value or '') or 0
  return n > -1e18 and n < 1e18 and n or 0
end

-- Adds to a number in a meta. Answers with the sum.
local function bump(mkey, field, by)
  local sum = number(soft('HGET', mkey, field)) + by
  soft('HSET', mkey, field, int(sum))
  return sum
end

local BAND = 2251799813685248 -- 2^51: four of them are what a double counts exactly; enough until the year 2109

-- Reserves n consecutive scores and returns the first. They embed the time in ms * 512, so that a score tells how long
-- its job has been ready; within a millisecond they count on.
local function reserve(n)
  local first = math.max(number(soft('GET', P .. 'seq')) + 1, NOW * 512)
  redis.call('SET', P .. 'seq', int(first + n - 1))
  return first
end

local function band(priority)
  return (3 - priority) * BAND
end

-- What else follows from a script's change. `WORK` is done at its end, see links.lua; `EFFECTS` are for the caller to
-- announce: flat event, queue, id, class, detail.
local WORK, EFFECTS = {}, {}
local RESULTS = {} -- by id, of jobs that complete: for those that wait for them

local function effect(event, queue, id, class, detail)
  local n = #EFFECTS
  EFFECTS[n + 1], EFFECTS[n + 2], EFFECTS[n + 3], EFFECTS[n + 4], EFFECTS[n + 5] = event, queue, id, class, detail
end

-- A reference to a job or a batch is its id, or, where that is in another shard, `<shard>|<id>`. Answers with that shard and
-- the id; with nothing of one that is here.
local function abroad(ref) return string.match(ref, '^(%d+)|(.+)$') end
local function id_of(ref) return string.match(ref, '^%d+|(.+)$') or ref end

local sent = 0 -- how much this script has sent to other shards

-- Tells another shard what it has to do, see lib/abroad.lua. The words come there in the order in which they were sent, each once.
-- Jobs and batches of this shard go by their ids, others by references.
local function send(shard, ...)
  soft('XADD', P .. 'outbox:' .. shard, '*', 'm', cjson.encode({...}))
  soft('SADD', P .. 'outboxes', shard)
  sent = sent + 1
end

-- Leaves a few tokens for workers that block on this queue.
local function wake(queue, n)
  local key = P .. 'wake:' .. queue
  local room = math.min(n, 4) - soft('LLEN', key)
  for _ = 1, room do soft('RPUSH', key, '1') end
end

local live -- whether anybody watches any job; asked once

-- Tells those who watch these jobs that something has changed. What, they look up themselves.
local function tell(ids, what)
  if live == nil then live = redis.call('EXISTS', P .. 'live') == 1 end
  if not live then return end
  for from = 1, #ids, 1000 do
    local watched = soft('ZMSCORE', P .. 'live', unpack(ids, from, math.min(from + 999, #ids)))
    for i = 1, #watched do
      if watched[i] then redis.call('PUBLISH', P .. 'live:' .. ids[from + i - 1], what) end
    end
  end
end

-- Jobs wait until they are due. An idle worker sleeps until the next job is: one is woken if that has become sooner.
local function put_later(queue, due, ids)
  local later, args = P .. 'later:' .. queue, {}
  local head = redis.call('ZRANGE', later, 0, 0, 'WITHSCORES')
  for k = 1, #ids do
    args[2 * k - 1] = int(due)
    args[2 * k] = ids[k]
  end
  many('ZADD', later, args)
  if not head[2] or due < tonumber(head[2]) then wake(queue, 1) end
end

-- A running job back to where it stood in its queue.
local function to_ready_where_it_stood(queue, id, score)
  redis.call('ZREM', P .. 'running:' .. queue, id)
  redis.call('ZADD', P .. 'ready:' .. queue, tonumber(score or '') and score or int(reserve(1) + band(1)), id)
  wake(queue, 1)
  tell({id}, 'ready')
end

-- Remembers what is not plain in a job's life.
local function note(id, event, detail)
  local key = P .. 'timeline:' .. id
  soft('RPUSH', key, int(NOW) .. ' ' .. event .. ' ' .. detail)
  soft('LTRIM', key, -100, -1)
  soft('SADD', P .. 'extras', id)
end

-- Remembers when the attempt that ends here was started: in the meta the next one's start takes its place. Before `note`.
local function note_start(id)
  local m = meta_of(id, 'epoch', 'attempt')
  soft('RPUSH', P .. 'timeline:' .. id, int(number(m[1])) .. ' started attempt ' .. int(number(m[2])))
end

local function keep_error(id, text)
  if text == '' then return end
  local key = P .. 'errors:' .. id
  soft('RPUSH', key, text)
  soft('LTRIM', key, -50, -1)
  soft('SADD', P .. 'extras', id)
end

local SPACING = 5120 -- of the jobs of one key, in a queue that serves keys in turn: ticks of a score, at weight 1

-- The place (within its band) of a job that takes its turn by a key, 'weight:key'. Start-time fair queueing: a key's jobs
-- stand apart by 1/weight, from where the queue is now, however many of them came at once.
local function turn(queue, fair)
  local weight, key = string.match(fair, '^(%d+):(.+)$')
  local fkey = P .. 'fair:' .. queue
  local f = soft('HMGET', fkey, '!', key)
  if not f[1] then soft('HSET', fkey, '!', int(NOW * 512)) end
  local at = math.max(f[1] and number(f[1]) or NOW * 512, number(f[2]))
  soft('HSET', fkey, key, int(at + math.max(1, math.floor(SPACING / math.max(1, number(weight))))))
  redis.call('PEXPIRE', fkey, 86400000)
  return at
end

-- Makes ids ready again, each at a fresh place at the end of its priority's band.
local function make_ready(queue, ids)
  local n = #ids
  if n == 0 then return end
  local first = reserve(n)
  local args = {}
  for i = 1, n do
    local m = meta_of(ids[i], 'priority', 'links')
    local fair = m[2] and string.match(m[2], ' f(%S+)')
    redis.call('HSET', P .. 'meta:' .. ids[i], 'state', 'ready')
    if fair then redis.call('HSET', P .. 'meta:' .. ids[i], 'since', int(NOW * 512)) end
    args[2 * i - 1] = int(band(tonumber(m[1] or '') or 1) + (fair and turn(queue, fair) or first + i - 1))
    args[2 * i] = ids[i]
  end
  many('ZADD', P .. 'ready:' .. queue, args)
  wake(queue, n)
  tell(ids, 'ready')
end

-- A job that waited for something else waits for its time, where that is still to come, or is ready.
local function make_due(queue, id, due)
  if due and due > NOW then
    redis.call('HSET', P .. 'meta:' .. id, 'state', 'scheduled')
    put_later(queue, due, {id})
    tell({id}, 'scheduled')
  else
    make_ready(queue, {id})
  end
end

-- Removes all that belongs to these jobs.
local function erase(ids)
  if #ids == 0 then return end
  local gone = {}
  local flags = soft('SMISMEMBER', P .. 'extras', unpack(ids))
  local extras = {}
  for i = 1, #ids do
    gone[#gone + 1] = P .. 'job:' .. ids[i]
    gone[#gone + 1] = P .. 'meta:' .. ids[i]
    if flags[i] == 1 then
      extras[#extras + 1] = ids[i]
      for _, family in ipairs({'errors:', 'timeline:', 'result:', 'progress:', 'checkpoint:', 'steps:', 'joblog:', 'parents:', 'inputs:', 'undone:'}) do
        gone[#gone + 1] = P .. family .. ids[i]
      end
    end
  end
  for i = 1, #gone, 4000 do redis.call('UNLINK', unpack(gone, i, math.min(i + 3999, #gone))) end
  if #extras > 0 then soft('SREM', P .. 'extras', unpack(extras)) end
end

-- Retention, done by whoever adds to a final set, so that no reaper can die: at most `keep` jobs, none older than
-- `age` ms. Bounded: at most 1000 over the count and 50 over the age per call.
local function collect(queue, family, state, keep, age)
  local key = P .. family .. ':' .. queue
  local victims = {}
  local over = math.min(soft('ZCARD', key) - keep, 1000)
  if over > 0 then
    local popped = soft('ZPOPMIN', key, over)
    for i = 1, #popped, 2 do victims[#victims + 1] = popped[i] end
  end
  local old = soft('ZRANGEBYSCORE', key, '-inf', '(' .. int(NOW - age), 'LIMIT', 0, 50)
  if #old > 0 then
    soft('ZREM', key, unpack(old))
    for i = 1, #old do victims[#victims + 1] = old[i] end
  end
  if #victims > 0 then
    erase(victims)
    count(queue, 'evicted_' .. state, #victims)
  end
end

-- Tells those who wait that a job is over.
local function announce(ids, state)
  tell(ids, state)
  if #ids == 0 or redis.call('EXISTS', P .. 'watched') == 0 then return end
  local flags = soft('SMISMEMBER', P .. 'watched', unpack(ids))
  for i = 1, #ids do
    if flags[i] == 1 then
      redis.call('PUBLISH', P .. 'final', ids[i] .. ' ' .. state)
      soft('SREM', P .. 'watched', ids[i])
    end
  end
end

local FAMILY = {completed = 'done', dead = 'dead', cancelled = 'cancelled', expired = 'expired'}

local retained -- how finished jobs are kept, as the script was told

-- A call's retention: eight numbers from ARGV[at] on.
local function retention(at)
  local keep = {}
  for i, state in ipairs({'completed', 'dead', 'cancelled', 'expired'}) do
    keep[state] = {tonumber(ARGV[at + 2 * i - 2]), tonumber(ARGV[at + 2 * i - 1])}
  end
  return keep
end

-- Puts jobs that were just taken from where they stood among the finished of their queue, and counts it there.
-- links: by id, what hangs on those that have any, see links.lua.
local function shelve(queue, state, ids, links)
  local args, now, members = {}, int(NOW), {}
  for i = 1, #ids do
    local id = ids[i]
    args[2 * i - 1] = now
    args[2 * i] = id
    local hangs = links[id]
    if hangs and string.find(hangs, ' [bksu]') then
      -- Those that completed and are members and no more are told together.
      local batch = state == 'completed' and string.match(hangs, '^ b(%S+)$')
      if not batch then
        WORK[#WORK + 1] = {'over', id, state, hangs, RESULTS[id]}
      elseif members[batch] then
        members[batch][#members[batch] + 1] = id
      else
        members[batch] = {id}
        WORK[#WORK + 1] = {'members', batch, members[batch]}
      end
    end
  end
  many('ZADD', P .. FAMILY[state] .. ':' .. queue, args)
  count(queue, state, #ids)
  announce(ids, state)
  collect(queue, FAMILY[state], state, retained[state][1], retained[state][2])
end

-- The same for one job that did not complete, with the reason.
local function conclude(queue, state, id, reason)
  local links = meta_of(id, 'links')[1]
  redis.call('HSET', P .. 'meta:' .. id, 'state', state, 'queue', queue, 'finished', int(NOW), 'reason', reason)
  if state == 'dead' then note(id, 'dead', reason) end
  shelve(queue, state, {id}, {[id] = links})
end
