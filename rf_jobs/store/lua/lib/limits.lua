-- Limits on running jobs, and holds (a paused class or key). A limit is referred to by its name, or `name/key` where it
-- counts for each key; its definition stands in `limit:<name>`. A job that may not start stands in `blocked:<queue>` and, in the
-- order in which it was ready, in `held:<ref>`; whoever frees the limit takes it from there: nobody polls.

-- The limit that a reference is to.
local function name_of(ref)
  return string.match(ref, '^[^/]+') or ''
end

-- The limits that a job's links name. Many jobs have the same.
local refs_by_links = {}
local function refs_in(links)
  local refs = refs_by_links[links]
  if not refs then
    refs = {}
    for ref in string.gmatch(links, ' l(%S+)') do refs[#refs + 1] = ref end
    refs_by_links[links] = refs
  end
  return refs
end

-- A held job back to where it stood. Answers whether it was held there.
local function unhold(ref, id, score)
  local m = meta_of(id, 'held', 'queue', 'class')
  local queue = m[2]
  if m[1] ~= ref or not queue or redis.call('ZREM', P .. 'blocked:' .. queue, id) == 0 then return false end
  redis.call('HSET', P .. 'meta:' .. id, 'state', 'ready')
  redis.call('HDEL', P .. 'meta:' .. id, 'held')
  redis.call('ZADD', P .. 'ready:' .. queue, score, id)
  wake(queue, 1)
  tell({id}, 'ready')
  count(queue, 'unblocked', 1)
  effect('unblocked', queue, id, m[3] or '', ref)
  return true
end

-- Lets go of at most n jobs that this limit holds. Answers how many.
local function release(ref, n)
  local freed = 0
  while freed < n do
    local popped = soft('ZPOPMIN', P .. 'held:' .. ref)
    if #popped == 0 then
      soft('SREM', P .. 'refs:' .. name_of(ref), ref)
      break
    end
    if unhold(ref, popped[1], popped[2]) then freed = freed + 1 end
  end
  return freed
end

-- Whether those that were let go have started is asked after so many ms: they may have been cancelled since, or stand in a
-- queue that nobody serves, while others wait in vain.
local LOOK_AGAIN = 5000

-- A job stops running, for whatever reason: what it took of concurrency limits is free again at the end of the script.
local leaving = {} -- ids by reference
local function leave(id, links)
  for _, ref in ipairs(refs_in(links)) do
    local ids = leaving[ref] or {}
    leaving[ref] = ids
    ids[#ids + 1] = id
  end
end

local function let_others_in(ref, ids)
  local n = many('SREM', P .. 'holders:' .. ref, ids)
  if n > 0 and redis.call('EXISTS', P .. 'held:' .. ref) == 1 and release(ref, n) > 0 and redis.call('EXISTS', P .. 'held:' .. ref) == 1 then
    soft('ZADD', P .. 'timers', 'LT', int(NOW + LOOK_AGAIN), ref)
  end
end

-- A limit's definition: what an operator set counts before what the code says.
local function limit_of(ref)
  local d = soft('HMGET', P .. 'limit:' .. name_of(ref), 'C', 'c', 'R', 'r', 'P', 'p', 'A', 'a')
  local concurrency, rate, per = number(d[1] or d[2]), number(d[3] or d[4]), number(d[5] or d[6])
  -- What somebody made nonsense of is no limit.
  return {concurrency = concurrency > 0 and concurrency or nil, rate = rate > 0 and per > 0 and rate or nil, per = per,
    bucket = (d[7] or d[8]) == 'bucket'}
end

-- How many jobs may start under a rate now, and when the next may.
local function tokens(ref, limit)
  if limit.bucket then
    local b = soft('HMGET', P .. 'bucket:' .. ref, 'tokens', 'at')
    local since = b[2] and math.max(0, NOW - number(b[2])) or 0
    limit.tokens = math.min(limit.rate, math.max(0, b[1] and number(b[1]) or limit.rate) + since * limit.rate / limit.per)
    local whole = math.floor(limit.tokens)
    return whole, NOW + math.max(1, math.ceil((whole + 1 - limit.tokens) * limit.per / limit.rate))
  end
  -- Sliding window: the times of the last starts, the newest first.
  local key = P .. 'starts:' .. ref
  local over = NOW - limit.per
  local n = soft('LLEN', key)
  if n > 0 and number(soft('LINDEX', key, -1)) <= over then -- halves it: the first that is too old
    local low, high = 0, n - 1
    while low < high do
      local mid = math.floor((low + high) / 2)
      if number(soft('LINDEX', key, mid)) <= over then high = mid else low = mid + 1 end
    end
    n = low
    if n == 0 then redis.call('UNLINK', key) else soft('LTRIM', key, 0, n - 1) end
  end
  local oldest = number(soft('LINDEX', key, -1))
  return math.max(0, limit.rate - n), math.min(NOW, oldest > 0 and oldest or NOW) + limit.per
end

-- What is free of a limit: {free, at = when a rate frees more (nil where only the end of a job does), ids = {}}
local function room_under(ref)
  local limit = limit_of(ref)
  limit.free, limit.ids = math.huge, {}
  if limit.concurrency then
    local key = P .. 'holders:' .. ref
    limit.free = limit.concurrency - soft('SCARD', key)
    if limit.free <= 0 then -- a look at some of them: what does not run (somebody edited its meta) holds nothing
      for _, id in ipairs(soft('SRANDMEMBER', key, 3)) do
        if meta_of(id, 'state')[1] ~= 'running' then limit.free = limit.free + soft('SREM', key, id) end
      end
    end
  end
  if limit.rate then
    local n, at = tokens(ref, limit)
    limit.at = at
    limit.by_rate = n < limit.free
    limit.free = math.min(limit.free, n)
  end
  return limit
end

-- Takes what was given out of a limit.
local function take(ref, limit)
  local n = #limit.ids
  if n == 0 then return end
  if limit.concurrency then many('SADD', P .. 'holders:' .. ref, limit.ids) end
  if not limit.rate then return end
  if limit.bucket then
    local key = P .. 'bucket:' .. ref
    soft('HSET', key, 'tokens', string.format('%.6f', limit.tokens - n), 'at', int(NOW))
    redis.call('PEXPIRE', key, int(limit.per * 2))
  else
    local key, stamps = P .. 'starts:' .. ref, {}
    for i = 1, n do stamps[i] = int(NOW) end
    many('LPUSH', key, stamps)
    redis.call('PEXPIRE', key, int(limit.per))
  end
end

-- A job that was just taken from `ready` waits for a limit or a hold.
local function hold(queue, id, score, ref, class)
  redis.call('HSET', P .. 'meta:' .. id, 'state', 'blocked', 'held', ref, 'queue', queue, 'class', class)
  redis.call('ZADD', P .. 'blocked:' .. queue, int(NOW), id)
  soft('ZADD', P .. 'held:' .. ref, score, id)
  soft('SADD', P .. 'refs:' .. name_of(ref), ref)
  count(queue, 'blocked', 1)
  tell({id}, 'blocked')
  effect('blocked', queue, id, class, ref)
end

-- A limit that holds jobs back is looked at when its rate frees one. Where only the end of a job frees one, whoever ends it does:
-- once a minute is for places that nobody would free (somebody removed a job by hand).
local function look_again(ref, limit)
  soft('ZADD', P .. 'timers', int(math.max(limit.at or NOW + 60000, NOW + 1)), ref)
end

-- Does what limits and holds have waited for, a bounded part of it. Answers when the next is due.
local function tick_timers()
  local head = soft('ZRANGE', P .. 'timers', 0, 0, 'WITHSCORES')
  if not head[2] then return nil end
  local budget = 500 -- jobs that one fetch lets go
  for _ = 1, 20 do
    if not head[2] or tonumber(head[2]) > NOW or budget <= 0 then break end
    local ref = head[1]
    soft('ZREM', P .. 'timers', ref)
    if string.sub(ref, 1, 1) == '!' then -- a hold for a time
      local held_until = tonumber(soft('HGET', P .. 'holds', string.sub(ref, 2)) or '')
      if held_until and held_until ~= 0 and held_until <= NOW then
        soft('HDEL', P .. 'holds', string.sub(ref, 2))
        WORK[#WORK + 1] = {'free', ref}
      end
    elseif redis.call('EXISTS', P .. 'held:' .. ref) == 1 then
      local limit = room_under(ref)
      local freed = limit.free > 0 and release(ref, math.min(limit.free, budget)) or 0
      budget = budget - freed
      local at = freed < limit.free and NOW or math.min(limit.at or math.huge, NOW + (limit.free > 0 and LOOK_AGAIN or 60000))
      if redis.call('EXISTS', P .. 'held:' .. ref) == 1 then
        soft('ZADD', P .. 'timers', int(math.max(at, NOW + 1)), ref)
      end
    else
      soft('SREM', P .. 'refs:' .. name_of(ref), ref)
    end
    head = soft('ZRANGE', P .. 'timers', 0, 0, 'WITHSCORES')
  end
  return tonumber(head[2] or '')
end
