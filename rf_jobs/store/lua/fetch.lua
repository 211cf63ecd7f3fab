-- Promotes what is due and leases jobs, by the order of the queues and of priority.
-- ARGV: worker, nonce, how many, lease ms, then queues in their order.
-- The same nonce sent again answers with the jobs of the first time that are still held.
-- Reply: {NOW, due time of the next scheduled job or -1, promoted, jobs}
--   promoted: flat queue, count, lag ms of the oldest
--   jobs: flat id, envelope or '', facts, where facts is 'queue score' for a first attempt (its epoch is NOW), 'queue score
--   exp' for one that expires at exp, otherwise 'queue score attempt crashes epoch first previous exp', first being the
--   score at which it first became ready, exp '' where it does not expire.
local worker, nonce, wanted, lease = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
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

local last = redis.call('HMGET', wkey, 'nonce', 'got')
if last[1] == nonce then
  -- Sent again: the reply to the first was lost. `got` is 'queue id queue id ...'.
  for queue, id in string.gmatch(last[2] or '', '([^ ]+) ([^ ]+)') do
    local m = meta_of(id, 'token', 'attempt', 'crashes', 'epoch', 'score', 'first', 'previous', 'exp')
    if m[1] == token then
      redis.call('ZADD', P .. 'running:' .. queue, 'XX', int(NOW + lease), id)
      give(id, table.concat({queue, m[5], m[2], m[3] or '0', m[4], m[6] or m[5], plain(m[7]), m[8] or ''}, ' '))
    end
  end
  envelopes()
  return {NOW, -1, promoted, jobs}
end

local paused = {}
for _, name in ipairs(redis.call('SMEMBERS', P .. 'paused')) do paused[name] = true end

local got, taken, next_due = {}, 0, -1
local expiry = int(NOW + lease)
for q = 5, #ARGV do
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
  local room = wanted - taken
  if room > 0 and not paused[queue] and redis.call('ZCARD', P .. 'ready:' .. queue) > 0 then
    redis.call('ZCARD', P .. 'running:' .. queue) -- raises, before anything is popped, where it can't take them
    local popped = redis.call('ZPOPMIN', P .. 'ready:' .. queue, room)
    if #popped > 0 then
      local leases = {}
      -- Most jobs have no meta yet; asking for all at once is cheaper than asking each.
      local metas = {}
      for i = 1, #popped, 2 do metas[(i + 1) / 2] = META .. popped[i] end
      local fresh = redis.call('EXISTS', unpack(metas)) == 0
      local stem = queue .. ' '
      for i = 1, #popped, 2 do
        local id, score, mkey = popped[i], popped[i + 1], metas[(i + 1) / 2]
        local m = fresh and NEW or meta_of(id, 'epoch', 'attempt', 'crashes', 'score', 'first', 'previous', 'exp')
        -- Whatever somebody made of a field by hand, after this it can be read.
        local exp = m[7] and tonumber(m[7]) and m[7]
        if m[1] then
          local attempt = number(m[2]) + 1
          local first = tonumber(m[5] or '') and m[5] or tonumber(m[4] or '') and m[4] or score
          local epoch = int(math.max(number(m[1]) + 1, NOW))
          local crashes, previous = int(number(m[3])), plain(m[6])
          redis.call('HSET', mkey, 'state', 'running', 'attempt', attempt, 'token', token, 'epoch', epoch,
            'score', score, 'first', first, 'crashes', crashes)
          give(id, table.concat({queue, score, attempt, crashes, epoch, first, previous, exp or ''}, ' '))
        else
          redis.call('HSET', mkey, 'state', 'running', 'attempt', '1', 'token', token, 'epoch', now, 'score', score)
          give(id, exp and stem .. score .. ' ' .. exp or stem .. score)
        end
        leases[i], leases[i + 1] = expiry, id
        taken = taken + 1
        got[taken] = stem .. id
      end
      many('ZADD', P .. 'running:' .. queue, leases)
      count(queue, 'started', #popped / 2)
    end
  end
end

if taken > 0 then
  redis.call('HSET', wkey, 'nonce', nonce, 'got', table.concat(got, ' '))
  redis.call('PEXPIRE', wkey, int(lease + 3600000)) -- for those who never beat
  envelopes()
end

return {NOW, next_due, promoted, jobs}
