-- Promotes what is due and leases jobs, by the order of the queues and of priority.
-- ARGV: worker, nonce, how many, lease ms, ageing ms (0: none), then queues in their order.
-- The same nonce sent again answers with the jobs of the first time that are still held.
-- Reply: {NOW, when to ask again at the latest (a job or a limit is due) or -1, promoted, jobs, effects, left in the outbox}
--   promoted: flat queue, count, lag ms of the oldest
--   jobs: flat id, envelope or '', facts, where facts is 'queue score' for a first attempt (its epoch is NOW), 'queue score
--   exp' for one that expires at exp, otherwise 'queue score attempt crashes epoch first previous exp', first being the
--   score at which it first became ready, exp '' where it does not expire.
local worker, nonce, wanted, lease, ageing = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local wkey = P .. 'worker:' .. worker
local token = worker .. '.' .. nonce
local jobs, promoted = {}, {}
local filled = 0
local now = int(NOW)
local META = P .. 'meta:'
local NEW = {}
local WIDTH = 3

local function give(id, facts)
  jobs[filled + 1], jobs[filled + 2], jobs[filled + 3] = id, '', facts
  filled = filled + WIDTH
end

-- A traceparent, if it is one: the reply's facts are words between spaces.
local function plain(previous)
  return string.match(previous or '', '^[%x-]+$') or ''
end

local function envelopes()
  for from = 1, filled, WIDTH * 1000 do
    local keys, n = {}, 0
    for i = from, math.min(from + WIDTH * 999, filled), WIDTH do
      n = n + 1
      keys[n] = P .. 'job:' .. jobs[i]
    end
    local found = redis.call('MGET', unpack(keys))
    for k = 1, n do jobs[from + (k - 1) * WIDTH + 1] = found[k] or '' end
  end
end

local last = soft('HMGET', wkey, 'nonce', 'got')
if last[1] == nonce then
  -- Sent again: the reply to the first was lost. `got` is 'queue id queue id ...'.
  for queue, id in string.gmatch(last[2] or '', '([^ ]+) ([^ ]+)') do
    local m = meta_of(id, 'token', 'attempt', 'crashes', 'epoch', 'score', 'first', 'previous', 'exp', 'since')
    if m[1] == token then
      redis.call('ZADD', P .. 'running:' .. queue, 'XX', int(NOW + lease), id)
      give(id, table.concat({queue, m[9] or m[5], m[2], m[3] or '0', m[4], m[6] or m[9] or m[5], plain(m[7]), m[8] or ''}, ' '))
    end
  end
  envelopes()
  return {NOW, -1, promoted, jobs, EFFECTS, 0}
end

local paused = {}
for _, name in ipairs(soft('SMEMBERS', P .. 'paused')) do paused[name] = true end

local got, taken, next_due = {}, 0, tick_timers() or -1
local expiry = int(NOW + lease)
local held, MAX_HELD = 0, 200
local limits = {} -- by reference: what is left of each that was met
local turns = {} -- by queue: how far its turns have come

-- Paused classes and keys: of each job that is taken while there are any, the envelope is read.
local holds -- asked for with the first job that is taken
local function hold_on(id)
  local ok, letter = pcall(cjson.decode, redis.call('GET', P .. 'job:' .. id) or '')
  if not ok or type(letter) ~= 'table' then return nil end
  local class = type(letter.job) == 'string' and letter.job or ''
  local keys = {['class:' .. class] = true}
  for _, tag in ipairs(type(letter.tags) == 'table' and letter.tags or {}) do keys['key:' .. tostring(tag)] = true end
  for i = 1, #holds, 2 do
    if keys[holds[i]] and (holds[i + 1] == '0' or number(holds[i + 1]) > NOW) then return '!' .. holds[i], class end
  end
end

-- What keeps a job from starting now; nil, and the limits that it counts against, where nothing does.
local function stopped_by(id, links)
  if #holds > 0 then
    local ref, class = hold_on(id)
    if ref then return ref, class end
  end
  local refs = refs_in(links or '')
  for _, ref in ipairs(refs) do
    local limit = limits[ref]
    if not limit then
      limit = room_under(ref)
      limits[ref] = limit
    end
    if limit.free <= 0 then return ref end
  end
  for _, ref in ipairs(refs) do
    local limit = limits[ref]
    limit.free = limit.free - 1
    limit.ids[#limit.ids + 1] = id
  end
end

-- A job that has waited in its band for so long goes up to the next.
local function age(queue)
  local ready = P .. 'ready:' .. queue
  for b = 1, 3 do
    local old = redis.call('ZRANGEBYSCORE', ready, int(b * BAND), '(' .. int(b * BAND + (NOW - ageing) * 512), 'WITHSCORES', 'LIMIT', 0, 50)
    for i = 1, #old, 2 do
      -- From one band to the next it waits as long again: its place tells how long it has been ready.
      local at = tonumber(old[i + 1]) - b * BAND
      local up = math.min(b, math.max(1, math.floor((NOW - at / 512) / ageing)))
      redis.call('ZADD', ready, int((b - up) * BAND + at), old[i])
    end
  end
end

-- Keys whose turn has long come are forgotten, once there are many.
local function trim_turns(fkey, at)
  local n = soft('HLEN', fkey)
  if n < 1000 or n < 2 * number(soft('HGET', fkey, '#')) then return end
  local f, gone = soft('HGETALL', fkey), {}
  for i = 1, #f, 2 do
    if f[i] ~= '!' and f[i] ~= '#' and number(f[i + 1]) <= at then gone[#gone + 1] = f[i] end
  end
  if #gone > 0 then many('HDEL', fkey, gone) end
  soft('HSET', fkey, '#', n - #gone)
end

local function lease_popped(queue, popped)
  holds = holds or soft('HGETALL', P .. 'holds')
  local leases, leased = {}, 0
  -- Most jobs have no meta yet; asking for all at once is cheaper than asking each.
  local metas = {}
  for i = 1, #popped, 2 do metas[(i + 1) / 2] = META .. popped[i] end
  local fresh = redis.call('EXISTS', unpack(metas)) == 0
  local stem = queue .. ' '
  for i = 1, #popped, 2 do
    local id, score, mkey = popped[i], popped[i + 1], metas[(i + 1) / 2]
    local m = fresh and NEW or meta_of(id, 'epoch', 'exp', 'links', 'since')
    local stop, class
    if m[3] or #holds > 0 then stop, class = stopped_by(id, m[3]) end
    if stop then
      hold(queue, id, score, stop, class or meta_of(id, 'class')[1] or '')
      held = held + 1
    else
      if m[4] then turns[queue] = math.max(turns[queue] or 0, tonumber(score) % BAND) end
      -- Whatever somebody made of a field by hand, after this it can be read.
      local exp = m[2] and tonumber(m[2]) and m[2]
      local stood = tonumber(m[4] or '') and m[4] or score
      if m[1] then
        local was = meta_of(id, 'attempt', 'crashes', 'score', 'first', 'previous')
        local attempt = number(was[1]) + 1
        local first = tonumber(was[4] or '') and was[4] or tonumber(was[3] or '') and was[3] or stood
        local epoch = int(math.max(number(m[1]) + 1, NOW))
        local crashes, previous = int(number(was[2])), plain(was[5])
        redis.call('HSET', mkey, 'state', 'running', 'attempt', attempt, 'token', token, 'epoch', epoch,
          'score', score, 'first', first, 'crashes', crashes)
        give(id, table.concat({queue, stood, attempt, crashes, epoch, first, previous, exp or ''}, ' '))
      else
        redis.call('HSET', mkey, 'state', 'running', 'attempt', '1', 'token', token, 'epoch', now, 'score', score)
        give(id, exp and stem .. stood .. ' ' .. exp or stem .. stood)
      end
      leased = leased + 1
      leases[2 * leased - 1], leases[2 * leased] = expiry, id
      taken = taken + 1
      got[taken] = stem .. id
    end
  end
  many('ZADD', P .. 'running:' .. queue, leases)
  count(queue, 'started', leased)
  tell(leases, 'running') -- the expiries among them are nobody's ids
end

for q = 6, #ARGV do
  local queue = ARGV[q]
  local later = P .. 'later:' .. queue
  local head = tonumber(redis.call('ZRANGE', later, 0, 0, 'WITHSCORES')[2])
  if head and head <= NOW then
    local due = redis.call('ZRANGEBYSCORE', later, '-inf', int(NOW), 'WITHSCORES', 'LIMIT', 0, 100)
    local ids = {}
    for i = 1, #due, 2 do ids[#ids + 1] = due[i] end
    redis.call('ZREM', later, unpack(ids))
    make_ready(queue, ids)
    count(queue, 'promoted', #ids)
    promoted[#promoted + 1] = queue
    promoted[#promoted + 1] = #ids
    promoted[#promoted + 1] = int(NOW - head)
    head = tonumber(redis.call('ZRANGE', later, 0, 0, 'WITHSCORES')[2])
  end
  if head and not paused[queue] and (next_due < 0 or head < next_due) then next_due = head end
  if not paused[queue] and wanted > taken and redis.call('ZCARD', P .. 'ready:' .. queue) > 0 then
    -- Where it can't take them: an error, or, when others have been taken already, these without it.
    local takes = redis.pcall('ZCARD', P .. 'running:' .. queue)
    if type(takes) == 'table' and takes.err then
      if taken == 0 then return redis.error_reply(takes.err) end
      break
    end
    if ageing > 0 then age(queue) end
    -- Again where limits held some of them back, so many times that a call stays short.
    repeat
      local before = held
      local popped = redis.call('ZPOPMIN', P .. 'ready:' .. queue, wanted - taken)
      if #popped > 0 then lease_popped(queue, popped) end
    until held == before or wanted == taken or held >= MAX_HELD
    if held >= MAX_HELD then next_due = NOW end -- there may be more: ask at once
  end
end

for ref, limit in pairs(limits) do
  take(ref, limit)
  if limit.free <= 0 and redis.call('EXISTS', P .. 'held:' .. ref) == 1 then
    look_again(ref, limit)
    if limit.at and (next_due < 0 or limit.at < next_due) then next_due = math.max(limit.at, NOW + 1) end
  end
end
for queue, at in pairs(turns) do
  local fkey = P .. 'fair:' .. queue
  if redis.call('ZCARD', P .. 'ready:' .. queue) == 0 then
    redis.call('UNLINK', fkey) -- whoever comes next has its turn at once
  elseif at > number(soft('HGET', fkey, '!')) then
    trim_turns(fkey, at)
    soft('HSET', fkey, '!', int(at))
  end
end

if taken > 0 then
  soft('HSET', wkey, 'nonce', nonce, 'got', table.concat(got, ' '))
  redis.call('PEXPIRE', wkey, int(lease + 3600000)) -- for those who never beat
  envelopes()
end

return {NOW, next_due, promoted, jobs, EFFECTS, run_work()}
