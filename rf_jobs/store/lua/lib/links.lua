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

-- The state in which a job or a batch has ended; nil where it has not.
local function ended_as(id)
  local state = meta_of(id, 'state')[1]
  if state then return FAMILY[state] and state end
  local b = redis.call('HMGET', P .. 'batch:' .. id, 'finished', 'state', 'lenient')
  return b[1] and ((b[2] == 'completed' or b[3] == '1') and 'completed' or 'dead')
end

-- Puts a job behind its parents. Answers with those that it has to wait for; or, where one has failed already and that counts,
-- with that one and its state, and the job waits for none.
local function behind(id, parents, onfail)
  local waits = {}
  for _, parent in ipairs(parents) do
    local state = ended_as(parent)
    if not state then
      waits[#waits + 1] = parent
    elseif state == 'completed' then
      local result = redis.call('GET', P .. 'result:' .. parent)
      if result then
        redis.call('HSET', P .. 'inputs:' .. id, parent, result)
        redis.call('SADD', P .. 'extras', id)
      end
    elseif onfail ~= 'run' then
      return waits, parent, state
    end
  end
  for _, parent in ipairs(waits) do
    local owner = redis.call('EXISTS', P .. 'batch:' .. parent) == 1 and 'batch:' or 'meta:'
    local links = redis.call('HGET', P .. owner .. parent, 'links') or ''
    if not string.find(links, ' k', 1, true) then redis.call('HSET', P .. owner .. parent, 'links', links .. ' k') end
    redis.call('SADD', P .. 'dependents:' .. parent, id)
  end
  return waits
end

-- Remembers that a job ended because of another, or of its batch.
local function undone_by(by, id, lasting)
  redis.call('SADD', P .. 'undone:' .. by, id)
  redis.call('HSET', P .. 'meta:' .. id, 'undone', by)
  if lasting then redis.call('SADD', P .. 'extras', by) end
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
    redis.call('SADD', P .. 'parents:' .. child, parent) -- should it be replayed
    undone_by(parent, child, redis.call('EXISTS', P .. 'batch:' .. parent) == 0)
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
  if string.find(links, ' k', 1, true) then
    local key = P .. 'dependents:' .. id
    for _, child in ipairs(redis.call('SPOP', key, CHUNK)) do parent_over(child, id, state, result) end
    if redis.call('EXISTS', key) == 1 then WORK[#WORK + 1] = {'over', id, state, ' k', result} end
  end
  -- After those: what its batch cancels then, it cancels for another reason.
  local batch = string.match(links, ' b(%S+)')
  if batch then WORK[#WORK + 1] = {'member', batch, id, state} end
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
      if stop ~= '1' then undone_by(batch, id) end
      end_waiting('cancelled', m[2], id, m[3] or '', reason)
    elseif redis.call('EXISTS', inner) == 1 then
      if stop ~= '1' then redis.call('SADD', P .. 'undone:' .. batch, id) end
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

-- What ended because of `by`, a job or a batch that runs again, is to run again too: ready, or behind those that it still waits
-- for. Behind one that has failed itself it stays as it is, until that runs again.
local function restore(child, by)
  local m = meta_of(child, 'queue', 'links', 'state', 'class', 'undone')
  local queue, family = m[1], m[3] == 'dead' and 'dead' or 'cancelled'
  if m[5] ~= by or not queue or not redis.call('ZSCORE', P .. family .. ':' .. queue, child) then return end
  local parents = redis.call('SMEMBERS', P .. 'parents:' .. child)
  local waits, failed = behind(child, parents, 'cancel')
  if failed then
    redis.call('SADD', P .. 'undone:' .. failed, child)
    redis.call('SADD', P .. 'extras', failed)
    redis.call('HSET', P .. 'meta:' .. child, 'undone', failed)
    return
  end
  redis.call('ZREM', P .. family .. ':' .. queue, child)
  redis.call('HDEL', P .. 'meta:' .. child, 'finished', 'reason', 'undone', 'cancel')
  redis.call('UNLINK', P .. 'parents:' .. child)
  count(queue, family == 'dead' and 'replayed' or 'restored', 1)
  effect('restored', queue, child, m[4] or '', by)
  if #waits > 0 then
    many('SADD', P .. 'parents:' .. child, waits)
    redis.call('HSET', P .. 'meta:' .. child, 'state', 'blocked')
    redis.call('ZADD', P .. 'blocked:' .. queue, int(NOW), child)
  else
    make_ready(queue, {child})
  end
  WORK[#WORK + 1] = {'reopen', child, m[2] or ''}
  WORK[#WORK + 1] = {'again', child}
end

-- {'again', id}: a job, or a batch, runs again.
function work.again(id)
  local key = P .. 'undone:' .. id
  for _, child in ipairs(redis.call('SPOP', key, CHUNK)) do
    if redis.call('EXISTS', P .. 'batch:' .. child) == 1 then
      redis.call('HDEL', P .. 'batch:' .. child, 'cancelled')
      WORK[#WORK + 1] = {'again', child}
    else
      restore(child, id)
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
  WORK[#WORK + 1] = {'again', batch}
  if redis.call('HDEL', key, 'finished') == 0 then return end
  redis.call('HSET', key, 'state', 'running')
  redis.call('ZADD', P .. 'batches:open', int(NOW), batch)
  for _, family in ipairs({'batch:', 'failed:', 'undone:', 'dependents:'}) do redis.call('PERSIST', P .. family .. batch) end
  local outer = redis.call('HGET', key, 'links') or ''
  WORK[#WORK + 1] = {'reopen', batch, outer}
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
