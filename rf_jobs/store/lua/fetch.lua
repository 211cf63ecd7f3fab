-- Promotes what is due and leases jobs, by the order of the queues and of priority.
-- ARGV: worker, nonce, how many, lease ms, then queues in their order.
-- The same nonce sent again answers with the jobs of the first time that are still held.
-- Reply: {NOW, due time of the next scheduled job or -1, parked count, promoted, jobs}
--   promoted: flat queue, count, lag ms of the oldest
--   jobs: flat id, envelope or '', queue, attempt, crashes, epoch, score, first, previous attempt's span or ''
local worker, nonce, wanted, lease = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local wkey = P .. 'worker:' .. worker
local token = worker .. '.' .. nonce
local jobs, promoted = {}, {}

local function give(id, queue, attempt, crashes, epoch, score, first, previous)
  local at = #jobs
  jobs[at + 1], jobs[at + 2], jobs[at + 3], jobs[at + 4] = id, '', queue, attempt
  jobs[at + 5], jobs[at + 6], jobs[at + 7], jobs[at + 8], jobs[at + 9] = crashes, epoch, score, first, previous
end

local function envelopes()
  for from = 1, #jobs, 9 * 1000 do
    local keys = {}
    for i = from, math.min(from + 9 * 1000 - 9, #jobs), 9 do keys[#keys + 1] = P .. 'job:' .. jobs[i] end
    local found = redis.call('MGET', unpack(keys))
    for k = 1, #keys do jobs[from + (k - 1) * 9 + 1] = found[k] or '' end
  end
end

local last = redis.call('HMGET', wkey, 'nonce', 'got')
if last[1] == nonce then
  for id in string.gmatch(last[2] or '', '[^ ]+') do
    local m = redis.call('HMGET', P .. 'meta:' .. id, 'state', 'token', 'queue', 'attempt', 'crashes', 'epoch', 'score', 'first', 'previous')
    if m[1] == 'running' and m[2] == token then
      redis.call('ZADD', P .. 'running:' .. m[3], 'XX', int(NOW + lease), id)
      give(id, m[3], m[4], m[5] or '0', m[6], m[7], m[8] or m[7], m[9] or '')
    end
  end
  envelopes()
  return {NOW, -1, 0, promoted, jobs}
end

local paused = {}
for _, name in ipairs(redis.call('SMEMBERS', P .. 'paused')) do paused[name] = true end

local got = {}
local expiry = int(NOW + lease)
for q = 5, #ARGV do
  local queue = ARGV[q]
  local later = P .. 'later:' .. queue
  local due = redis.call('ZRANGEBYSCORE', later, '-inf', int(NOW), 'WITHSCORES', 'LIMIT', 0, 100)
  if #due > 0 then
    local ids = {}
    for i = 1, #due, 2 do ids[#ids + 1] = due[i] end
    redis.call('ZREM', later, unpack(ids))
    make_ready(queue, ids)
    count(queue, 'promoted', #ids)
    promoted[#promoted + 1] = queue
    promoted[#promoted + 1] = #ids
    promoted[#promoted + 1] = int(NOW - tonumber(due[2]))
  end
  local room = wanted - #got
  if room > 0 and not paused[queue] then
    local popped = redis.call('ZPOPMIN', P .. 'ready:' .. queue, room)
    if #popped > 0 then
      local leases = {}
      for i = 1, #popped, 2 do
        local id, score = popped[i], popped[i + 1]
        local mkey = P .. 'meta:' .. id
        local m = redis.call('HMGET', mkey, 'attempt', 'crashes', 'epoch', 'first', 'previous')
        local attempt = tonumber(m[1] or '0') + 1
        local epoch = NOW
        if m[3] then epoch = math.max(tonumber(m[3]) + 1, NOW) end
        epoch = int(epoch)
        if m[4] then
          redis.call('HSET', mkey, 'state', 'running', 'queue', queue, 'attempt', attempt, 'token', token,
            'epoch', epoch, 'score', score, 'started', int(NOW))
        else
          redis.call('HSET', mkey, 'state', 'running', 'queue', queue, 'attempt', attempt, 'token', token,
            'epoch', epoch, 'score', score, 'started', int(NOW), 'first', score)
        end
        give(id, queue, attempt, m[2] or '0', epoch, score, m[4] or score, m[5] or '')
        got[#got + 1] = id
        leases[#leases + 1] = expiry
        leases[#leases + 1] = id
      end
      many('ZADD', P .. 'running:' .. queue, leases)
      count(queue, 'started', #popped / 2)
    end
  end
end

if #got > 0 then
  redis.call('HSET', wkey, 'nonce', nonce, 'got', table.concat(got, ' '))
  envelopes()
end

-- What an idle worker needs to know: how long it may sleep, and whether anything is parked.
local next_due, parked = -1, 0
if #got < wanted then
  for q = 5, #ARGV do
    if not paused[ARGV[q]] then
      local head = redis.call('ZRANGE', P .. 'later:' .. ARGV[q], 0, 0, 'WITHSCORES')
      if head[2] and (next_due < 0 or tonumber(head[2]) < next_due) then next_due = tonumber(head[2]) end
    end
    parked = parked + redis.call('ZCARD', P .. 'parked:' .. ARGV[q])
  end
end
return {NOW, next_due, parked, promoted, jobs}
