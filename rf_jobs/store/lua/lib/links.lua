-- What hangs on a job, and what follows from its end. A job's meta has `links`: words, each with a blank before it:
--   bID  it is a member of this batch       uDIGEST  it holds this unique lock      k  others wait for it
--   lREF it runs under this limit           fKEY     it takes its turn by this key
--   sNAME this schedule dispatched it
-- From the end of a job something follows only for b, k, s and u: `shelve` looks for these letters.
-- A batch's hash has `links` too: a batch in a batch is one member of it, and jobs can wait for it.
--
-- Consequences are put on WORK and done here, breadth first and bounded; what is left goes to the outbox and is done by
-- settle.lua. Each is safe to do twice: a parent leaves `parents:<child>` once, a member leaves `pending:<batch>` once.
--
-- A member, a batch, a parent or a child may be in another shard: then it goes by a reference, and what is to be done there is sent.
local STEPS, CHUNK = 2000, 500
local admit_one -- admit.lua: dispatches one job
local from_outbox = false -- whether what is done here was put on WORK by an earlier script
local spent = 0 -- how many jobs were looked at
local work = {}

-- Takes a job from wherever it waits. Answers with the state it was in, nil where it does not wait.
local WAITING = {{'ready', 'ready'}, {'later', 'scheduled'}, {'blocked', 'blocked'}, {'parked', 'parked'}}
local function take_waiting(queue, id)
  for _, pair in ipairs(WAITING) do
    if redis.call('ZREM', P .. pair[1] .. ':' .. queue, id) == 1 then
      if pair[1] == 'blocked' then
        local held = meta_of(id, 'held')[1]
        if held then soft('ZREM', P .. 'held:' .. held, id) end
      end
      return pair[2]
    end
  end
end

-- Asks the worker that runs a job to stop it: by its next heartbeat, and at once where it listens.
local function ask_to_stop(id, token, reason)
  local worker = string.match(token or '', '^[^.]+') or ''
  redis.call('HSET', P .. 'meta:' .. id, 'cancel', reason)
  redis.call('HSETNX', P .. 'meta:' .. id, 'asked', int(NOW))
  soft('SADD', P .. 'cancels:' .. worker, id)
  redis.call('PEXPIRE', P .. 'cancels:' .. worker, 3600000)
  redis.call('PUBLISH', P .. 'stop:' .. worker, id)
  tell({id}, 'cancel')
end

-- A blocked job waits for nobody any more.
local function unblock(queue, id, class, due)
  redis.call('ZREM', P .. 'blocked:' .. queue, id)
  redis.call('UNLINK', P .. 'parents:' .. id)
  count(queue, 'unblocked', 1)
  effect('unblocked', queue, id, class, '')
  make_due(queue, id, due)
end

-- The state in which a job or a batch has ended; nil where it has not, or is not known.
local function ended_as(id)
  local state = meta_of(id, 'state')[1]
  if state then return FAMILY[state] and state end
  local b = soft('HMGET', P .. 'batch:' .. id, 'finished', 'state', 'lenient')
  if b[1] then return (b[2] == 'completed' or b[3] == '1') and 'completed' or 'dead' end
  return string.match(soft('GET', P .. 'ended:' .. id) or '', '^%a+')
end

local function is_known(id)
  return redis.call('EXISTS', P .. 'job:' .. id, P .. 'batch:' .. id, P .. 'ended:' .. id) > 0
end

-- Whether what is to be told of a job or a batch is out of date: it runs again, or has since ended in another way.
local function is_stale(id, state)
  if not from_outbox or abroad(id) then return false end
  local now = ended_as(id)
  if now then return now ~= state end
  return is_known(id)
end

local function take_input(id, parent, result)
  if not result then return end
  soft('HSET', P .. 'inputs:' .. id, id_of(parent), result)
  soft('SADD', P .. 'extras', id)
end

-- A job, or batch, of this shard will tell another job when it ends.
local function depend(child, parent)
  local owner = redis.call('EXISTS', P .. 'batch:' .. parent) == 1 and 'batch:' or 'meta:'
  local links = soft('HGET', P .. owner .. parent, 'links') or ''
  if not string.find(links, ' k', 1, true) then redis.call('HSET', P .. owner .. parent, 'links', links .. ' k') end
  soft('SADD', P .. 'dependents:' .. parent, child)
end

-- How a parent has ended, nil where it has not; and what it answered with.
local function fate_of(parent) return ended_as(parent) or not is_known(parent) and 'gone' end
local function result_of(parent)
  return soft('GET', P .. 'result:' .. parent) or string.match(soft('GET', P .. 'ended:' .. parent) or '', '^%a+ (.+)')
end

-- Puts a job behind its parents. Answers with those that are not over, and with those that failed, if that counts, and how the
-- first of these did.
local function behind(id, parents, onfail)
  local waits, failed, how = {}, {}, nil
  for _, parent in ipairs(parents) do
    local shard, there = abroad(parent)
    local state = not shard and fate_of(parent)
    if not state then
      waits[#waits + 1] = parent
      if shard then send(shard, 'await', there, id) else depend(id, parent) end
    elseif state == 'completed' then
      take_input(id, parent, result_of(parent))
    elseif onfail ~= 'run' then
      failed[#failed + 1], how = parent, how or state
    end
  end
  return waits, failed, how
end

-- Remembers, as long as that can run again, what ended because of a job or of a batch.
local function undone_by(by, id)
  local is_job = not abroad(id) and redis.call('EXISTS', P .. 'job:' .. id) == 1
  if abroad(by) then -- there it was noted when this was told
    if is_job then redis.call('HSET', P .. 'meta:' .. id, 'undone', by) end
    return
  end
  local ttl = redis.call('PTTL', P .. 'batch:' .. by)
  if redis.call('EXISTS', P .. 'job:' .. by) == 1 then soft('SADD', P .. 'extras', by) elseif ttl == -2 then return end
  soft('SADD', P .. 'undone:' .. by, id)
  if ttl > 0 then redis.call('PEXPIRE', P .. 'undone:' .. by, ttl) end
  if is_job then redis.call('HSET', P .. 'meta:' .. id, 'undone', by) end
end

-- A job waits for these.
local function put_behind(queue, id, parents)
  many('SADD', P .. 'parents:' .. id, parents)
  redis.call('HSET', P .. 'meta:' .. id, 'state', 'blocked')
  redis.call('ZADD', P .. 'blocked:' .. queue, int(NOW), id)
end

-- Since some of those that it waited for have failed a job does not run; should the first of them be replayed, it waits again.
local function wait_for_replay(id, waits, failed)
  many('SADD', P .. 'parents:' .. id, waits)
  many('SADD', P .. 'parents:' .. id, failed)
  undone_by(failed[1], id)
end

-- A job that holds a lock until it is done runs again: so does its lock, unless an equal job has it by now.
local function relock(id, links)
  local unique = string.match(links, ' u(%S+)')
  if unique and meta_of(id, 'lock')[1] == 'done' then
    redis.call('SET', P .. 'unique:' .. unique, id .. ' done ' .. int(NOW), 'NX')
  end
end

-- A job ends without having run, because of what happened to another.
local function end_waiting(state, queue, id, class, reason)
  if state == 'dead' then
    keep_error(id, string.format('{"type":"DependencyFailed","message":%s,"attempt":0,"at":%s}', cjson.encode(reason), int(NOW)))
  end
  conclude(queue, state, id, reason)
  effect(state, queue, id, class, reason)
end

-- One parent of a blocked job has ended.
local function parent_over(child, parent, state, result)
  local shard, there = abroad(child)
  if shard then
    if state ~= 'completed' then undone_by(parent, child) end -- should it be replayed
    send(shard, 'parent_over', there, parent, state, result or false)
    return
  end
  local m = meta_of(child, 'state', 'queue', 'class', 'onfail', 'due', 'undone')
  if not m[2] or m[1] ~= 'blocked' and not m[6] or soft('SREM', P .. 'parents:' .. child, parent) == 0 then return end
  if state ~= 'completed' and m[4] ~= 'run' then
    soft('SADD', P .. 'parents:' .. child, parent) -- should it be replayed
    if m[6] then
      -- It has ended because of another already. Did its batch end it, it stays so when that runs again: until this parent does.
      if soft('SISMEMBER', P .. 'parents:' .. child, m[6]) == 0 then undone_by(parent, child) end
      return
    end
    if not take_waiting(m[2], child) then return end
    undone_by(parent, child)
    end_waiting(m[4] == 'dead' and 'dead' or 'cancelled', m[2], child, m[3] or '', id_of(parent) .. ' ' .. state)
    return
  end
  take_input(child, parent, result)
  if m[6] then return end -- it has ended because of another, and may be back
  if soft('SCARD', P .. 'parents:' .. child) == 0 then unblock(m[2], child, m[3] or '', tonumber(m[5] or '')) end
end

-- Of a member of a batch that is still being dispatched: those that wait for it may be yet to come, or all of it be sent again, and
-- it be gone by then.
local function remember_end(id, state, result)
  redis.call('SET', P .. 'ended:' .. id, state .. ' ' .. result, 'PX', 900000)
end

-- {'over', id, state, links, result}: a job or a batch has ended.
function work.over(id, state, links, result)
  if is_stale(id, state) then return end
  local schedule = string.match(links, ' s(%S+)')
  if schedule and redis.call('EXISTS', P .. 'schedule:' .. schedule) == 1 then
    soft('HSET', P .. 'schedule:' .. schedule, 'outcome', state, 'ended', int(NOW))
    if state == 'completed' then soft('HSET', P .. 'schedule:' .. schedule, 'succeeded', int(NOW)) end
  end
  local unique = string.match(links, ' u(%S+)')
  if unique then
    local holder, mode = string.match(soft('GET', P .. 'unique:' .. unique) or '', '^(%S+) (%a+)')
    if holder == id and mode ~= 'window' then redis.call('UNLINK', P .. 'unique:' .. unique) end
  end
  if string.find(links, ' k', 1, true) then
    local key = P .. 'dependents:' .. id
    local children = soft('SPOP', key, CHUNK)
    for _, child in ipairs(children) do parent_over(child, id, state, result) end
    spent = spent + #children
    if redis.call('EXISTS', key) == 1 then WORK[#WORK + 1] = {'over', id, state, ' k', result} end
  end
  -- After those: what its batch cancels then, it cancels for another reason.
  local batch = string.match(links, ' b(%S+)')
  if not batch then return end
  WORK[#WORK + 1] = {'member', batch, id, state}
  local away = abroad(batch)
  if away and redis.call('EXISTS', P .. 'batch:' .. id) == 0 or not away and soft('HEXISTS', P .. 'batch:' .. batch, 'sealed') == 0 then
    remember_end(id, state, string.find(links, ' k', 1, true) and result or '')
  end
end

-- {'free', ref}: a hold has ended.
function work.free(ref)
  if release(ref, CHUNK) == CHUNK then WORK[#WORK + 1] = {'free', ref} end
end

-- What ended because of it is to run again, if there is any.
local function run_again(id)
  if redis.call('EXISTS', P .. 'undone:' .. id) == 1 then WORK[#WORK + 1] = {'again', id} end
end

-- What ended because of `by`, a job or a batch that runs again, is to run again too: ready, or behind those that it still waits
-- for. Behind one that has failed itself it stays as it is, until that runs again. Answers False where that is `by`.
local function restore(child, by)
  local m = meta_of(child, 'queue', 'links', 'state', 'class', 'undone', 'onfail')
  local queue, family = m[1], m[3] == 'dead' and 'dead' or 'cancelled'
  if m[3] == 'blocked' and soft('SISMEMBER', P .. 'parents:' .. child, by) == 1 then -- it has not heard of the end: it waits on
    behind(child, {by}, m[6] or 'cancel')
    return true
  end
  if m[5] ~= by or not queue or not redis.call('ZSCORE', P .. family .. ':' .. queue, child) then return true end
  local waits, failed = behind(child, soft('SMEMBERS', P .. 'parents:' .. child), m[6] or 'cancel')
  redis.call('UNLINK', P .. 'parents:' .. child)
  if failed[1] then
    wait_for_replay(child, waits, failed)
    return failed[1] ~= by
  end
  redis.call('ZREM', P .. family .. ':' .. queue, child)
  redis.call('HDEL', P .. 'meta:' .. child, 'finished', 'reason', 'undone', 'cancel', 'asked', 'heard', 'held')
  relock(child, m[2] or '')
  count(queue, family == 'dead' and 'replayed' or 'restored', 1)
  effect('restored', queue, child, m[4] or '', id_of(by))
  if #waits > 0 then
    put_behind(queue, child, waits)
    tell({child}, 'blocked')
  else
    make_ready(queue, {child})
  end
  WORK[#WORK + 1] = {'reopen', child, m[2] or ''}
  run_again(child)
  return true
end

-- {'again', id}: a job, or a batch, runs again.
function work.again(id)
  local key, more = P .. 'undone:' .. id, true
  local undone = soft('SPOP', key, CHUNK)
  spent = spent + #undone
  for _, child in ipairs(undone) do
    local shard, there = abroad(child)
    if shard then
      local is_batch = redis.call('EXISTS', P .. 'batch:' .. id) == 1
      if is_batch then -- what is heard of it until it answers is old news
        soft('SADD', P .. 'returning:' .. id, child)
        redis.call('PEXPIRE', P .. 'returning:' .. id, 86400000)
      end
      send(shard, 'restore', there, id, is_batch)
    elseif redis.call('EXISTS', P .. 'batch:' .. child) == 1 then
      soft('HDEL', P .. 'batch:' .. child, 'cancelled')
      WORK[#WORK + 1] = {'again', child}
    elseif not restore(child, id) then
      more = false -- it has failed again
    end
  end
  if more then run_again(id) end
end

-- What one of them meets, somebody's edit of its callbacks for one, must not stop those behind it. It is kept for whoever has to
-- mend it; the doctor tells.
local function try(item, f, ...)
  local ok, fault = pcall(f, ...)
  if ok then return end
  local said = cjson.encode(item) .. ' ' .. tostring(type(fault) == 'table' and fault.err or fault)
  redis.log(redis.LOG_WARNING, 'rf-jobs: skipped ' .. said)
  soft('RPUSH', P .. 'outbox:skipped', int(NOW) .. ' ' .. said)
  soft('LTRIM', P .. 'outbox:skipped', -1000, -1)
end

-- Does what is on WORK, as much as one script may. Answers whether that was all.
local next_item = 1
local function do_work()
  while WORK[next_item] do
    if next_item + spent > STEPS or #EFFECTS >= 5 * STEPS then return false end
    local item = WORK[next_item]
    try(item, work[item[1]], item[2], item[3], item[4], item[5])
    next_item = next_item + 1
  end
  return true
end

-- To be called at the end of each script that moves jobs. Answers how much is left in the outbox, and how much was sent elsewhere.
local function run_work()
  for ref, ids in pairs(leaving) do try({'leave', ref, ids}, let_others_in, ref, ids) end
  do_work()
  for i = next_item, #WORK do soft('RPUSH', P .. 'outbox', cjson.encode(WORK[i])) end
  return WORK[1] and soft('LLEN', P .. 'outbox') or 0, sent
end
