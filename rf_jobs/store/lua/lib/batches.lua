-- Batches and chains: what the end of a member means for them, and what a batch's own end brings. See links.lua.

-- A callback, unless somebody made something else of it: id, queue, priority, class, envelope.
local function is_draft(d)
  return type(d) == 'table' and tonumber(d[3]) and type(d[1]) == 'string' and type(d[2]) == 'string' and type(d[4]) == 'string'
    and type(d[5]) == 'string'
end

-- Dispatches a batch's callbacks, each at most once in its life.
local function fire(batch, which)
  local key = P .. 'batch:' .. batch
  local drafts = soft('HGET', key, which)
  if not drafts or soft('HSETNX', key, 'fired:' .. which, int(NOW)) == 0 then return end
  local ok, list = pcall(cjson.decode, drafts)
  for _, d in ipairs(ok and type(list) == 'table' and list or {}) do
    if is_draft(d) and tonumber(d[6]) then
      send(d[6], 'admit', d[1], d[2], d[3], d[4], d[5])
    elseif is_draft(d) and admit_one(d[1], d[2], tonumber(d[3]), d[5]) then effect('dispatched', d[2], d[1], d[4], d[3]) end
  end
end

-- A member of a batch that is cancelled.
local function doom_one(id, reason, stop, batch)
  local m = meta_of(id, 'state', 'queue', 'class', 'token')
  if m[2] and m[1] == 'running' then
    if stop == '1' then ask_to_stop(id, m[4], reason) end
  elseif m[2] and take_waiting(m[2], id) then
    if stop ~= '1' then undone_by(batch, id) end
    end_waiting('cancelled', m[2], id, m[3] or '', reason)
  elseif redis.call('EXISTS', P .. 'batch:' .. id) == 1 then
    if stop ~= '1' then undone_by(batch, id) end
    if abroad(batch) then work.stop(id, reason, stop, batch) else WORK[#WORK + 1] = {'stop', id, reason, stop, batch} end
  end
end

-- Stops what a batch still has waiting, some at a time. stop: '1' asks those that run to stop, too.
function work.doom(batch, reason, stop)
  local doomed = soft('SPOP', P .. 'doomed:' .. batch, CHUNK)
  for _, id in ipairs(doomed) do
    local shard, there = abroad(id)
    if shard then
      if stop ~= '1' then undone_by(batch, id) end
      send(shard, 'doomed', there, reason, stop, batch)
    else
      doom_one(id, reason, stop, batch)
    end
  end
  spent = spent + #doomed
  if #doomed == CHUNK then WORK[#WORK + 1] = {'doom', batch, reason, stop} end
end

-- {'stop', batch, reason, stop, outer}: nothing of a batch that waits is to run.
function work.stop(batch, reason, stop, outer)
  local key = P .. 'batch:' .. batch
  if from_outbox and outer and not abroad(outer) and soft('HEXISTS', P .. 'batch:' .. outer, 'cancelled') == 0 then return end -- it runs again
  if soft('HEXISTS', key, 'finished') == 1 then return end
  if stop == '1' then soft('HSET', key, 'stopped', int(NOW)) end
  if soft('HSETNX', key, 'cancelled', reason) == 0 and stop ~= '1' then return end
  soft('SCARD', P .. 'pending:' .. batch) -- drops it where it is no set
  redis.call('SUNIONSTORE', P .. 'doomed:' .. batch, P .. 'pending:' .. batch)
  work.doom(batch, reason, stop)
end

-- Whether a batch is done, and what follows.
local function look_at(batch)
  if soft('SCARD', P .. 'pending:' .. batch) > 0 or soft('HLEN', P .. 'expected:' .. batch) > 0
    or soft('SCARD', P .. 'returning:' .. batch) > 0 then return end
  local key = P .. 'batch:' .. batch
  local b = soft('HMGET', key, 'sealed', 'finished', 'links', 'state', 'keep', 'lenient', 'stopped', 'abandoned', 'kind', 'created')
  if not b[1] or b[2] then return end
  local failed = soft('SCARD', P .. 'failed:' .. batch)
  local state = b[7] and 'cancelled' or (failed > 0 or b[8]) and 'failed' or 'completed'
  soft('HSET', key, 'finished', int(NOW), 'state', state)
  effect('batch', state, batch, b[9] or 'batch', int(failed) .. ' ' .. int(NOW - number(b[10])))
  soft('ZREM', P .. 'batches:open', batch)
  local keep = math.max(60000, number(b[5]) > 0 and number(b[5]) or 604800000) -- who waits for it looks at it once a second
  for _, family in ipairs({'batch:', 'failed:', 'undone:', 'dependents:'}) do redis.call('PEXPIRE', P .. family .. batch, int(keep)) end
  for _, old in ipairs(soft('ZRANGEBYSCORE', P .. 'batches', '-inf', int(NOW - keep), 'LIMIT', 0, 50)) do
    if redis.call('EXISTS', P .. 'batch:' .. old) == 0 then soft('ZREM', P .. 'batches', old) end
  end
  if state == 'completed' then fire(batch, 'then') elseif state == 'failed' then fire(batch, 'catch') end
  fire(batch, 'finally')
  if b[3] then WORK[#WORK + 1] = {'over', batch, (state == 'completed' or b[6] == '1') and 'completed' or 'dead', b[3]} end
end

-- A member of a batch has ended. is_back: and runs again, as its batch is about to hear, so that nobody is stopped for it.
function work.member(batch, id, state, is_back)
  if is_stale(id, state) then return end
  local shard, there = abroad(batch)
  if shard then return send(shard, 'member', there, id, state) end
  if soft('SREM', P .. 'pending:' .. batch, id) == 0 then return end
  if state ~= 'completed' then
    local key = P .. 'batch:' .. batch
    soft('SADD', P .. 'failed:' .. batch, id)
    if abroad(id) and soft('SISMEMBER', P .. 'returning:' .. batch, id) == 1 then return end
    if soft('HSETNX', key, 'first_failed', id) == 1 and soft('HEXISTS', key, 'stopped') == 0 then fire(batch, 'catch') end
    if not is_back and soft('HGET', key, 'lenient') ~= '1' then work.stop(batch, id_of(id) .. ' ' .. state, '0') end
  end
  look_at(batch)
end

-- {'members', batch, ids}: members that are nothing else have completed.
function work.members(batch, ids)
  spent = spent + #ids - 1
  if from_outbox then
    for _, id in ipairs(ids) do work.over(id, 'completed', ' b' .. batch) end
    return
  end
  local shard, there = abroad(batch)
  if shard then
    for _, id in ipairs(ids) do remember_end(id, 'completed', '') end
    return send(shard, 'members', there, ids)
  end
  if soft('HEXISTS', P .. 'batch:' .. batch, 'sealed') == 0 then
    for _, id in ipairs(ids) do remember_end(id, 'completed', '') end
  end
  if many('SREM', P .. 'pending:' .. batch, ids) > 0 then look_at(batch) end
end

-- {'answer', shard, batch, id}: it was told to run again by its batch in another shard, which hears what has become of it first.
function work.answer(shard, batch, id) send(shard, 'answered', batch, id) end

-- Its batch waits for it again.
function work.reopen(id, links)
  local batch = string.match(links, ' b(%S+)')
  local shard, there = abroad(batch or '')
  if shard then
    send(shard, 'reopen', there, id)
    -- It may have ended before this is told.
    local state = from_outbox and (ended_as(id) or not is_known(id) and 'cancelled')
    if state then send(shard, 'member', there, id, state) end
    return
  end
  local key = P .. 'batch:' .. (batch or '')
  if not batch or soft('SREM', P .. 'failed:' .. batch, id) == 0 then return end
  soft('SADD', P .. 'pending:' .. batch, id)
  soft('HDEL', key, 'cancelled', 'stopped')
  redis.call('UNLINK', P .. 'doomed:' .. batch)
  run_again(batch)
  if from_outbox and not abroad(id) then -- it may have ended before it was told that it runs again
    local state = ended_as(id) or not is_known(id) and 'cancelled'
    if state then WORK[#WORK + 1] = {'member', batch, id, state} end
  end
  if soft('HDEL', key, 'finished') == 0 then return end
  soft('HSET', key, 'state', 'running')
  soft('ZADD', P .. 'batches:open', int(NOW), batch)
  for _, family in ipairs({'batch:', 'failed:', 'undone:', 'dependents:'}) do redis.call('PERSIST', P .. family .. batch) end
  local outer = soft('HGET', key, 'links') or ''
  WORK[#WORK + 1] = {'reopen', batch, outer}
end
