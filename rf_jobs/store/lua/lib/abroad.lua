-- What other shards tell this one: each word that `send` (prelude.lua) knows. It is done by the functions that do it for jobs and
-- batches of one shard; where they meet a reference they send on.
-- Words of one shard come in order and once, so what they say of its jobs is true, if not of now. Words of two shards come in any
-- order.
local OWN, FROM -- the numbers of this shard, and of the one that speaks
local heard = {}

-- A reference as this shard has to make it.
local function here(ref)
  local shard, id = abroad(ref)
  if not shard then return FROM .. '|' .. ref end
  return shard == OWN and id or ref
end

local function all_here(ids)
  local refs = {}
  for i, id in ipairs(ids) do refs[i] = here(id) end
  return refs
end

-- A job there is to wait for a job or a batch that is here: it is told now, or when that ends.
local function tell_when_over(child, parent)
  local state = fate_of(parent)
  if not state then return depend(child, parent) end
  parent_over(child, parent, state, result_of(parent))
end

function heard.await(parent, child) tell_when_over(here(child), parent) end

function heard.parent_over(child, parent, state, result) parent_over(child, here(parent), state, result or nil) end

-- A batch has heard of all that it expects.
local function expects_nobody(batch)
  if soft('HLEN', P .. 'expected:' .. batch) == 0 then soft('ZREM', P .. 'batches:expecting', batch) end
end

-- Members of a batch that is here have been dispatched there.
function heard.join(batch, ids)
  local key, refs = P .. 'batch:' .. batch, all_here(ids)
  if many('HDEL', P .. 'expected:' .. batch, refs) > 0 then expects_nobody(batch) end
  local b = soft('HMGET', key, 'state', 'finished', 'cancelled', 'stopped')
  if not b[1] or b[2] then return end -- they come too late to be its members
  soft('HINCRBY', key, 'total', many('SADD', P .. 'pending:' .. batch, refs))
  soft('ZADD', P .. 'batches:unsealed', 'XX', int(NOW), batch)
  if not b[3] and not b[4] then return end
  many('SADD', P .. 'doomed:' .. batch, refs)
  WORK[#WORK + 1] = {'doom', batch, b[3] or 'batch cancelled', b[4] and '1' or '0'}
end

-- They have not: they are there already, or, missing, were refused. What was refused before all of its batch was there will be
-- missing, also when that runs again.
function heard.unexpect(batch, ids, missing)
  local expected, gone = P .. 'expected:' .. batch, 0
  for _, ref in ipairs(all_here(ids)) do
    local how = soft('HGET', expected, ref)
    if how and missing and string.sub(how, 1, 1) == '+' then soft('HSET', P .. 'batch:' .. batch, 'abandoned', 1) end
    -- A chain whose last step it was to be has the one before as its last.
    if how and #how > 1 and soft('HGET', P .. 'batch:' .. batch, 'last') == ref then
      soft('HSET', P .. 'batch:' .. batch, 'last', string.sub(how, 2))
    end
    gone = gone + soft('HDEL', expected, ref)
  end
  if gone == 0 then return end
  expects_nobody(batch)
  look_at(batch)
end

-- A batch there expects these, and has heard nothing of them for long.
function heard.verify(ids, batch)
  local lost, there = {}, {}
  for _, id in ipairs(ids) do
    local list = is_known(id) and there or lost
    list[#list + 1] = id
  end
  if #lost > 0 then send(FROM, 'unexpect', batch, lost, true) end
  if #there > 0 then send(FROM, 'unexpect', batch, there, false) end -- those that are its members have joined before
end

function heard.member(batch, id, state, is_back) work.member(batch, here(id), state, is_back) end

-- Of words that are delivered together: an end, and that who has ended runs again. Done one after the other, they would have others
-- end and run again who tell the same, for ever. So the first does not take effect on others.
local function outdate(words)
  local back = {}
  for i = #words, 1, -1 do
    local word = words[i]
    local name, a, b = word[1], tostring(word[2]), tostring(word[3])
    if name == 'reopen' or name == 'restore' then back[name .. ' ' .. a .. ' ' .. b] = true end
    if name == 'member' and word[4] ~= 'completed' and back['reopen ' .. a .. ' ' .. b] then word[5] = true end
    if name == 'parent_over' and word[4] ~= 'completed' and back['restore ' .. a .. ' ' .. b]
      or name == 'doomed' and word[4] ~= '1' and back['restore ' .. a .. ' ' .. tostring(word[5])] then word[1] = 'nothing' end
  end
end

function heard.nothing() end

function heard.unknown() error('not a word that this version knows') end

function heard.members(batch, ids)
  if many('SREM', P .. 'pending:' .. batch, all_here(ids)) > 0 then look_at(batch) end
end

function heard.reopen(batch, id) work.reopen(here(id), ' b' .. batch) end

function heard.doomed(id, reason, stop, batch) doom_one(id, reason, stop, here(batch)) end

-- What ended because of another, which runs again, is to run again too.
function heard.restore(child, by, wants_answer)
  local asker = by
  by = here(by)
  if redis.call('EXISTS', P .. 'batch:' .. child) == 1 then
    soft('HDEL', P .. 'batch:' .. child, 'cancelled')
    redis.call('UNLINK', P .. 'doomed:' .. child)
    WORK[#WORK + 1] = {'again', child}
  else
    restore(child, by)
  end
  if wants_answer then WORK[#WORK + 1] = {'answer', FROM, asker, child} end
end

-- A member that was told so has said what has become of it.
function heard.answered(batch, id)
  soft('SREM', P .. 'returning:' .. batch, here(id))
  look_at(batch)
end

-- A callback of a batch there.
function heard.admit(id, queue, priority, class, envelope)
  if admit_one(id, queue, tonumber(priority), envelope) then effect('dispatched', queue, id, class, priority) end
end

-- A step there stands between a job of this shard and those that wait for that.
function heard.between(parent, id, batch)
  local step = here(id)
  for _, child in ipairs(soft('SMEMBERS', P .. 'dependents:' .. parent)) do
    if child ~= step then
      soft('SREM', P .. 'dependents:' .. parent, child)
      send(FROM, 'adopt', id_of(step), child, parent)
    end
  end
  if batch then follow_last(here(batch), parent, step) end
end

-- A job waits for one that is here, instead of for another.
function heard.adopt(id, child, parent)
  child, parent = here(child), here(parent)
  local shard, there = abroad(child)
  if shard then send(shard, 'swap', there, parent, id) else swap_parent(child, parent, id) end
  tell_when_over(child, id)
end

function heard.swap(child, parent, instead) swap_parent(child, here(parent), here(instead)) end

function heard.follow_last(batch, parent, id) follow_last(batch, here(parent), here(id)) end
