-- Dispatches jobs of one queue, priority and due time. The only way into the store.
--   due: ms or nil; valid: '' or ms after which it expires; jobs: flat id, envelope; opts: nil, or what is asked beyond that, as
--   store/options.py has it: job_class; links (see links.lua), each with a blank before it; unique, depends, batch, slot; between
--   (its one parent and those that wait for that), behind (its chain's last step), awaited, remember.
-- Answers with the ids that are new, and with a flat list of what is to be said of others: index, code, detail.

-- Whether the holder of a unique lock still holds it.
local function holds(holder, mode)
  if mode == 'window' then return true end
  if redis.call('EXISTS', P .. 'job:' .. holder) == 0 or ended_as(holder) then return false end
  return mode ~= 'start' or not meta_of(holder, 'epoch')[1]
end

-- Takes a unique lock for a job that is about to be dispatched. Answers with the holder where another has it, else with nil
-- and when the job is due.
local function lock(id, u, due)
  local key = P .. 'unique:' .. u.digest
  local holder, mode, first = string.match(soft('GET', key) or '', '^(%S+) (%a+) (%d+)')
  first = tonumber(first or '') or NOW
  if holder and holds(holder, mode) then
    local m = meta_of(holder, 'queue', 'class', 'epoch')
    local may = (u.conflict == 'replace' or u.conflict == 'debounce') and m[1] and not m[3]
    if not may or not take_waiting(m[1], holder) then return holder end
    end_waiting('cancelled', m[1], holder, m[2] or '', 'replaced by ' .. id)
  else
    first = NOW
  end
  local window = u.window > 0 and u.window or nil
  if u.conflict == 'debounce' then
    due = NOW + u.window
    if u.ceiling then due = math.min(due, first + u.ceiling) end
    window = nil
  end
  local value = id .. ' ' .. u.mode .. ' ' .. int(first)
  if window then redis.call('SET', key, value, 'PX', int(window)) else redis.call('SET', key, value) end
  return nil, due
end

-- When a dispatch limit has its next free slot: a time with fewer than n others less than p away from it. `slots:<name>` has
-- the jobs by the time of their slots.
local function next_slot(r, due)
  local key, at = P .. 'slots:' .. r.name, due or NOW
  soft('ZREMRANGEBYSCORE', key, '-inf', int(NOW - r.per))
  for _ = 1, 1000 do
    local near = soft('ZRANGEBYSCORE', key, '(' .. int(at - r.per), '(' .. int(at + r.per), 'WITHSCORES')
    local n = #near / 2
    if n < r.limit then break end
    at = number(near[2 * (n - r.limit + 1)]) + r.per
  end
  return at
end

local function take_slot(r, at, id)
  local key = P .. 'slots:' .. r.name
  soft('ZADD', key, int(at), id)
  redis.call('PEXPIRE', key, int(math.max(at - NOW + r.per, redis.call('PTTL', key))))
end

-- What stands in a dispatch's way that can't be helped; nil where nothing does.
local function obstacle(opts)
  if opts.depends then
    for _, parent in ipairs(opts.depends.parents) do
      if not abroad(parent) and not is_known(parent) then return 'no_parent', parent end
    end
  end
end

-- Why nothing can be added to a batch; nil where it can.
local function closed(batch)
  local b = soft('HMGET', P .. 'batch:' .. batch, 'state', 'cancelled')
  if not b[1] then return 'unknown' end
  if b[2] then return 'cancelled' end
  if b[1] ~= 'running' then return b[1] end
end

-- Puts a fresh job behind its parents. Answers whether it waits; the last word is onfail's, where one has failed already.
local function wait_for(queue, id, class, d, due)
  local waits, failed, how = behind(id, d.parents, d.failure)
  soft('SADD', P .. 'extras', id)
  redis.call('HSET', P .. 'meta:' .. id, 'onfail', d.failure)
  if failed[1] then
    wait_for_replay(id, waits, failed)
    end_waiting(d.failure == 'dead' and 'dead' or 'cancelled', queue, id, class, failed[1] .. ' ' .. how)
    return 'over'
  end
  if #waits == 0 then return nil end
  put_behind(queue, id, waits)
  if due then redis.call('HSET', P .. 'meta:' .. id, 'due', int(due)) end
  count(queue, 'blocked', 1)
  return 'blocked'
end

-- A blocked job waits for another one instead.
local function swap_parent(child, parent, instead)
  if soft('SREM', P .. 'parents:' .. child, parent) == 1 then soft('SADD', P .. 'parents:' .. child, instead) end
end

-- Where `parent` was a chain's last step, `id` is.
local function follow_last(batch, parent, id)
  local shard, there = abroad(batch)
  if shard then
    send(shard, 'follow_last', there, parent, id)
  elseif soft('HGET', P .. 'batch:' .. batch, 'last') == parent then
    soft('HSET', P .. 'batch:' .. batch, 'last', id)
  end
end

-- A job that was put behind `parent` takes over those that wait for that: the next step of a chain.
local function step_between(id, parent, batch)
  local home, there = abroad(parent)
  if home then return send(home, 'between', there, id, batch or false) end
  local from, to = P .. 'dependents:' .. parent, P .. 'dependents:' .. id
  for _, child in ipairs(soft('SMEMBERS', from)) do
    local shard, child_there = abroad(child)
    if child ~= id and (shard or meta_of(child, 'state')[1] == 'blocked') then
      soft('SREM', from, child)
      soft('SADD', to, child)
      if shard then send(shard, 'swap', child_there, parent, id) else swap_parent(child, parent, id) end
    end
  end
  if redis.call('EXISTS', to) == 1 then
    redis.call('HSET', P .. 'meta:' .. id, 'links', (redis.call('HGET', P .. 'meta:' .. id, 'links') or '') .. ' k')
  end
  if batch then follow_last(batch, parent, id) end
end

-- Puts fresh jobs where they are to stand: among the ready, or by their due time.
local function place(queue, priority, due, ids, fair)
  local n, args = #ids, {}
  if n == 0 then return end
  if due and due > NOW then
    put_later(queue, due, ids)
    count(queue, 'scheduled', n)
    return
  end
  local first = reserve(n)
  for k = 1, n do
    args[2 * k - 1] = int(band(priority) + (fair and turn(queue, fair) or first + k - 1))
    args[2 * k] = ids[k]
    if fair then redis.call('HSET', P .. 'meta:' .. ids[k], 'since', int(NOW * 512)) end
  end
  many('ZADD', P .. 'ready:' .. queue, args)
  wake(queue, n)
end

-- What only some dispatches ask for, of one job; before it is placed. Answers with a code and a detail where there is something
-- to say (refused: nothing was written), and when it is due.
local REFUSED = {no_parent = true, batch = true, unique = true, limited = true, dropped = true}
local function prepare(queue, id, opts, due)
  local code, detail = obstacle(opts)
  if code then return code, detail end
  if opts.slot then
    local at = next_slot(opts.slot, due)
    if at > (due or NOW) then
      if opts.slot.over ~= 'delay' then return opts.slot.over == 'drop' and 'dropped' or 'limited', int(at - NOW) end
      due, code, detail = at, 'delayed', int(at - NOW)
    end
  end
  if opts.unique then
    local holder, pushed = lock(id, opts.unique, due)
    if holder then return 'unique', holder end
    if pushed ~= due then code, detail = 'delayed', int(pushed - NOW) end
    due = pushed
  end
  if opts.slot then take_slot(opts.slot, due or NOW, id) end
  return code, detail, due
end

local function admit(queue, priority, due, valid, opts, jobs)
  local others = opts and opts.depends and opts.depends.parents or {}
  local fresh, said = {}, {}
  local links = opts and (opts.links or '') .. (opts.batch and ' b' .. opts.batch or '') .. (opts.unique and ' u' .. opts.unique.digest or '') .. (opts.awaited and ' k' or '')
  local fair = opts and opts.links and string.match(opts.links, ' f(%S+)')
  local batch = opts and opts.batch
  local away, batch_there = abroad(batch or '') -- the batch's shard, where it is another: it expects its members
  local shut = batch and not away and closed(batch)
  local special = opts and (opts.unique or opts.depends or opts.slot or opts.behind or shut)
  local members, missing, others_known = {}, {}, {}
  local function say(i, code, detail)
    said[#said + 1], said[#said + 2], said[#said + 3] = i, code, detail or ''
  end
  local added = 0
  for i = 1, #jobs, 2 do
    local id, mine = jobs[i], due
    local at = (i + 1) / 2
    local code, detail
    if opts and opts.behind then -- behind the step that is the last one now, maybe the job before this one
      local last = soft('HGET', P .. 'batch:' .. opts.batch, 'last') or ''
      opts.depends = {parents = {last, unpack(others)}, failure = opts.depends and opts.depends.failure or 'cancel'}
    end
    local again = opts and (opts.remember and redis.call('EXISTS', P .. 'relayed:' .. id) == 1
      or opts.batch and redis.call('EXISTS', P .. 'ended:' .. id) == 1)
    if special and not again and redis.call('EXISTS', P .. 'job:' .. id) == 0 then
      if shut then code, detail = 'batch', shut else code, detail, mine = prepare(queue, id, opts, due) end
    end
    if REFUSED[code] then
      if code == 'unique' then count(queue, 'deduplicated', 1) end
      -- What is refused before all of its batch was there will be missing, also when that runs again.
      if away then
        local list = code == 'unique' and others_known or missing
        list[#list + 1] = id
      elseif opts.batch and code ~= 'unique' and detail ~= 'unknown' and soft('HEXISTS', P .. 'batch:' .. opts.batch, 'sealed') == 0 then
        soft('HSET', P .. 'batch:' .. opts.batch, 'abandoned', 1)
      end
      say(at, code, detail)
    elseif not again and redis.call('SET', P .. 'job:' .. id, jobs[i + 1], 'NX') then
      if opts and opts.remember then redis.call('SET', P .. 'relayed:' .. id, '', 'PX', int(opts.remember)) end
      added = added + 1
      local mkey = P .. 'meta:' .. id
      if priority ~= 1 then redis.call('HSET', mkey, 'priority', priority) end
      if valid ~= '' then redis.call('HSET', mkey, 'exp', int(NOW + tonumber(valid))) end
      if links and links ~= '' or opts and opts.depends then redis.call('HSET', mkey, 'links', links, 'queue', queue, 'class', opts.job_class or '') end
      if opts and opts.unique and opts.unique.mode == 'done' then redis.call('HSET', mkey, 'lock', 'done') end
      local waits
      if opts and opts.batch then members[#members + 1] = id end
      if opts and opts.depends then
        waits = wait_for(queue, id, opts.job_class or '', opts.depends, mine)
        if waits then code, detail = 'waits', waits end
        if opts.between and waits == 'blocked' then step_between(id, opts.depends.parents[1], opts.batch) end
        if opts.behind then soft('HSET', P .. 'batch:' .. opts.batch, 'last', id) end
      end
      if code then say(at, code, detail) end
      if not waits then
        if mine ~= due then place(queue, priority, mine, {id}, fair)
        else fresh[#fresh + 1] = id end
      end
    else
      count(queue, 'deduplicated', 1)
      say(at, 'known')
      if away then others_known[#others_known + 1] = id end
    end
  end
  if away then
    if #members > 0 then send(away, 'join', batch_there, members) end
    if #missing > 0 then send(away, 'unexpect', batch_there, missing, true) end
    if #others_known > 0 then send(away, 'unexpect', batch_there, others_known, false) end
  elseif #members > 0 then
    many('SADD', P .. 'pending:' .. opts.batch, members)
    soft('ZADD', P .. 'batches:unsealed', 'XX', int(NOW), opts.batch) -- its dispatch goes on
    soft('HINCRBY', P .. 'batch:' .. opts.batch, 'total', #members)
  end
  if added > 0 then
    place(queue, priority, due, fresh, fair)
    soft('SADD', P .. 'queues', queue)
    count(queue, 'dispatched', added)
  end
  return added, said
end

admit_one = function(id, queue, priority, envelope)
  return admit(queue, priority, nil, '', nil, {id, envelope}) == 1
end
