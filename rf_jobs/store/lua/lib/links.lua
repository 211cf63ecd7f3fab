-- What hangs on a job, and what follows from its end. A job's meta has `links`: words, each with a blank before it:
--   bID  it is a member of this batch       uDIGEST  it holds this unique lock      k  others wait for it
--   lREF it runs under this limit           fKEY     it takes its turn by this key
--   sNAME this schedule dispatched it
-- A batch's hash has `links` too: a batch in a batch is one member of it, and jobs can wait for it.
--
-- Consequences are put on WORK and done here, breadth first and bounded; what is left goes to the outbox and is done by
-- settle.lua. Each is safe to do twice: a parent leaves `parents:<child>` once, a member leaves `pending:<batch>` once.
local STEPS, CHUNK = 2000, 500
local retained -- how finished jobs are kept, as the script was told
local admit_one -- admit.lua: dispatches one job
local work = {}

-- Takes a job from wherever it waits. Answers with the state it was in, nil where it does not wait.
local WAITING = {{'ready', 'ready'}, {'later', 'scheduled'}, {'blocked', 'blocked'}, {'parked', 'parked'}}
local function take_waiting(queue, id)
  for _, pair in ipairs(WAITING) do
    if redis.call('ZREM', P .. pair[1] .. ':' .. queue, id) == 1 then
      if pair[1] == 'blocked' then
        local held = meta_of(id, 'held')[1]
        if held then redis.call('ZREM', P .. 'held:' .. held, id) end
        redis.call('UNLINK', P .. 'parents:' .. id)
      end
      return pair[2]
    end
  end
end

-- Asks the worker that runs a job to stop it.
local function ask_to_stop(id, token, reason)
  redis.call('HSET', P .. 'meta:' .. id, 'cancel', reason)
  local key = P .. 'cancels:' .. (string.match(token or '', '^[^.]+') or '')
  redis.call('SADD', key, id)
  redis.call('PEXPIRE', key, 3600000)
end

-- A blocked job waits for nobody any more.
local function unblock(queue, id, class, due)
  redis.call('ZREM', P .. 'blocked:' .. queue, id)
  redis.call('UNLINK', P .. 'parents:' .. id)
  count(queue, 'unblocked', 1)
  effect('unblocked', queue, id, class, '')
  if due and due > NOW then
    redis.call('HSET', P .. 'meta:' .. id, 'state', 'scheduled')
    redis.call('ZADD', P .. 'later:' .. queue, int(due), id)
    wake(queue, 1)
  else
    make_ready(queue, {id})
  end
end

-- A job ends without having run, because of what happened to another.
local function end_waiting(state, queue, id, class, reason)
  if state == 'dead' then
    keep_error(id, string.format('{"type":"DependencyFailed","message":%s,"attempt":0,"at":%s}', cjson.encode(reason), int(NOW)))
  end
  conclude(queue, state, id, reason, retained)
  effect(state, queue, id, class, reason)
end

-- One parent of a blocked job has ended.
local function parent_over(child, parent, state, result)
  local m = meta_of(child, 'state', 'queue', 'class', 'onfail', 'due')
  if m[1] ~= 'blocked' or not m[2] or redis.call('SREM', P .. 'parents:' .. child, parent) == 0 then return end
  if state ~= 'completed' and m[4] ~= 'run' then
    if not take_waiting(m[2], child) then return end
    redis.call('SADD', P .. 'undone:' .. parent, child)
    redis.call('PEXPIRE', P .. 'undone:' .. parent, int(retained.dead[2]))
    redis.call('SADD', P .. 'extras', parent)
    end_waiting(m[4] == 'dead' and 'dead' or 'cancelled', m[2], child, m[3] or '', parent .. ' ' .. state)
    return
  end
  if result then
    redis.call('HSET', P .. 'inputs:' .. child, parent, result)
    redis.call('SADD', P .. 'extras', child)
  end
  if redis.call('SCARD', P .. 'parents:' .. child) == 0 then unblock(m[2], child, m[3] or '', tonumber(m[5] or '')) end
end

-- {'over', id, state, links, result}: a job or a batch has ended.
function work.over(id, state, links, result)
  local schedule = string.match(links, ' s(%S+)')
  if schedule and redis.call('EXISTS', P .. 'schedule:' .. schedule) == 1 then
    redis.call('HSET', P .. 'schedule:' .. schedule, 'outcome', state, 'ended', int(NOW))
    if state == 'completed' then redis.call('HSET', P .. 'schedule:' .. schedule, 'succeeded', int(NOW)) end
  end
  local unique = string.match(links, ' u(%S+)')
  if unique then
    local holder, mode = string.match(redis.call('GET', P .. 'unique:' .. unique) or '', '^(%S+) (%a+)')
    if holder == id and mode ~= 'window' then redis.call('UNLINK', P .. 'unique:' .. unique) end
  end
  local batch = string.match(links, ' b(%S+)')
  if batch then work.member(batch, id, state) end
  if string.find(links, ' k', 1, true) then
    local key = P .. 'dependents:' .. id
    for _, child in ipairs(redis.call('SPOP', key, CHUNK)) do parent_over(child, id, state, result) end
    if redis.call('EXISTS', key) == 1 then WORK[#WORK + 1] = {'over', id, state, ' k', result} end
  end
end

-- Dispatches a batch's callbacks, each at most once in its life.
local function fire(batch, which)
  local key = P .. 'batch:' .. batch
  local drafts = redis.call('HGET', key, which)
  if not drafts or redis.call('HSETNX', key, 'fired:' .. which, int(NOW)) == 0 then return end
  for _, d in ipairs(cjson.decode(drafts)) do
    if admit_one(d[1], d[2], tonumber(d[3]), d[5]) then effect('dispatched', d[2], d[1], d[4], d[3]) end
  end
end

-- Stops what a batch still has waiting, some at a time. stop: '1' asks those that run to stop, too.
function work.doom(batch, reason, stop)
  local doomed = redis.call('SPOP', P .. 'doomed:' .. batch, CHUNK)
  for _, id in ipairs(doomed) do
    local inner = P .. 'batch:' .. id
    local m = meta_of(id, 'state', 'queue', 'class', 'token')
    if m[2] and m[1] == 'running' then
      if stop == '1' then ask_to_stop(id, m[4], reason) end
    elseif m[2] and take_waiting(m[2], id) then
      end_waiting('cancelled', m[2], id, m[3] or '', reason)
    elseif redis.call('EXISTS', inner) == 1 then
      WORK[#WORK + 1] = {'stop', id, reason, stop}
    end
  end
  if #doomed == CHUNK then WORK[#WORK + 1] = {'doom', batch, reason, stop} end
end

-- Nothing of a batch that waits is to run.
function work.stop(batch, reason, stop)
  local key = P .. 'batch:' .. batch
  if redis.call('HGET', key, 'finished') or (redis.call('HSETNX', key, 'cancelled', reason) == 0 and stop ~= '1') then return end
  redis.call('SUNIONSTORE', P .. 'doomed:' .. batch, P .. 'pending:' .. batch)
  work.doom(batch, reason, stop)
end

-- Whether a batch is done, and what follows.
local function look_at(batch)
  local key = P .. 'batch:' .. batch
  local b = redis.call('HMGET', key, 'sealed', 'finished', 'links', 'state', 'keep', 'lenient', 'stopped', 'abandoned', 'kind', 'created')
  if not b[1] or b[2] or redis.call('SCARD', P .. 'pending:' .. batch) > 0 then return end
  local failed = redis.call('SCARD', P .. 'failed:' .. batch)
  local state = b[7] and 'cancelled' or (failed > 0 or b[8]) and 'failed' or 'completed'
  redis.call('HSET', key, 'finished', int(NOW), 'state', state)
  effect('batch', state, batch, b[9] or 'batch', int(failed) .. ' ' .. int(NOW - number(b[10])))
  redis.call('ZREM', P .. 'batches:open', batch)
  local keep = tonumber(b[5] or '') or 604800000
  for _, family in ipairs({'batch:', 'failed:', 'undone:', 'dependents:'}) do redis.call('PEXPIRE', P .. family .. batch, int(keep)) end
  redis.call('ZREMRANGEBYSCORE', P .. 'batches', '-inf', int(NOW - keep))
  if state == 'completed' then fire(batch, 'then') elseif state == 'failed' then fire(batch, 'catch') end
  fire(batch, 'finally')
  if b[3] then WORK[#WORK + 1] = {'over', batch, (state == 'completed' or b[6] == '1') and 'completed' or 'dead', b[3]} end
end

-- A member of a batch has ended.
function work.member(batch, id, state)
  if redis.call('SREM', P .. 'pending:' .. batch, id) == 0 then return end
  if state ~= 'completed' then
    local key = P .. 'batch:' .. batch
    redis.call('SADD', P .. 'failed:' .. batch, id)
    if redis.call('HSETNX', key, 'first_failed', id) == 1 and redis.call('HEXISTS', key, 'stopped') == 0 then fire(batch, 'catch') end
    if redis.call('HGET', key, 'lenient') ~= '1' then work.stop(batch, id .. ' ' .. state, '0') end
  end
  look_at(batch)
end

-- {'free', ref}: a hold has ended.
function work.free(ref)
  if release(ref, CHUNK) == CHUNK then WORK[#WORK + 1] = {'free', ref} end
end

-- A failed job runs again: it counts as pending in its batch, and what was cancelled because of it waits for it again.
function work.again(id)
  local key = P .. 'undone:' .. id
  local restored = {}
  for _, child in ipairs(redis.call('SPOP', key, CHUNK)) do
    local m = meta_of(child, 'queue', 'reason', 'links', 'state', 'class')
    local family = m[4] == 'dead' and 'dead' or 'cancelled'
    if m[1] and m[2] and string.sub(m[2], 1, #id) == id and redis.call('ZREM', P .. family .. ':' .. m[1], child) == 1 then
      redis.call('HSET', P .. 'meta:' .. child, 'state', 'blocked')
      redis.call('HDEL', P .. 'meta:' .. child, 'finished', 'reason')
      redis.call('ZADD', P .. 'blocked:' .. m[1], int(NOW), child)
      redis.call('SADD', P .. 'parents:' .. child, id)
      redis.call('SADD', P .. 'dependents:' .. id, child)
      redis.call('SADD', P .. 'extras', child)
      count(m[1], family == 'dead' and 'replayed' or 'restored', 1)
      effect('restored', m[1], child, m[5] or '', id)
      WORK[#WORK + 1] = {'reopen', child, m[3] or ''}
      WORK[#WORK + 1] = {'again', child}
    end
  end
  if redis.call('EXISTS', key) == 1 then WORK[#WORK + 1] = {'again', id} end
end

-- Its batch waits for it again.
function work.reopen(id, links)
  local batch = string.match(links, ' b(%S+)')
  local key = P .. 'batch:' .. (batch or '')
  if not batch or redis.call('SREM', P .. 'failed:' .. batch, id) == 0 then return end
  redis.call('SADD', P .. 'pending:' .. batch, id)
  redis.call('HDEL', key, 'cancelled', 'stopped')
  if redis.call('HDEL', key, 'finished') == 0 then return end
  redis.call('HSET', key, 'state', 'running')
  redis.call('ZADD', P .. 'batches:open', int(NOW), batch)
  for _, family in ipairs({'batch:', 'failed:', 'undone:', 'dependents:'}) do redis.call('PERSIST', P .. family .. batch) end
  local outer = redis.call('HGET', key, 'links') or ''
  WORK[#WORK + 1] = {'reopen', batch, outer}
  if string.find(outer, ' k', 1, true) then WORK[#WORK + 1] = {'again', batch} end
end

-- Does what is on WORK; to be called at the end of each script that moves jobs. Answers how much is left in the outbox.
local function run_work()
  local at = 1
  while WORK[at] and at <= STEPS and #EFFECTS < 5 * STEPS do
    local item = WORK[at]
    work[item[1]](item[2], item[3], item[4], item[5])
    at = at + 1
  end
  for i = at, #WORK do redis.call('RPUSH', P .. 'outbox', cjson.encode(WORK[i])) end
  return WORK[1] and redis.call('LLEN', P .. 'outbox') or 0
end
