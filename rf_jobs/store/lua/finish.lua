-- Ends attempts, many at once, each checked against its token.
-- ARGV: retention of completed, dead, cancelled, expired (each: count, age ms), then groups.
--   'complete', queue, token, n, then n ids.
--   'result', queue, token, n, ttl ms, then n times: id, result (JSON).
--   Any other group is one job: verb, queue, id, token, number, reason, error (JSON or ''), span (traceparent or '').
--     retry   number = delay ms                              snooze  number = delay ms
--     bury, discard, expire, park, release                   crash   number = max crashes
-- Reply: {verdicts, effects, left in the outbox}. A verdict for each job: 1 done, 2 was done before (the same call sent again), 0 refused: the lease is not held,
--   3 cancelled instead of what was asked (it had been asked to stop), 4 buried instead (its last crash).
retained = retention(1)
local replies = {}
local now = int(NOW)

local META = P .. 'meta:'

local CANCELLED, BURIED = 3, 4

-- The fence. Only the holder of the current token may move a job; a token with a '!' before it has been used up.
local function check(id, token, used)
  local m = meta_of(id, 'token', 'links')
  if m[1] == token then return 1, m[2] end
  if m[1] == used then return 2 end
  return 0
end

local function to_later(queue, id, delay)
  redis.call('ZREM', P .. 'running:' .. queue, id)
  put_later(queue, NOW + delay, {id})
  tell({id}, 'scheduled')
end

local function end_as(state, queue, id, reason, err)
  redis.call('ZREM', P .. 'running:' .. queue, id)
  keep_error(id, err)
  conclude(queue, state, id, reason)
end

local verbs = {}
local AGAIN = {retry = true, snooze = true, release = true, park = true}

function verbs.retry(queue, id, mkey, delay, reason, err, span)
  redis.call('HSET', mkey, 'state', 'scheduled')
  if span ~= '' then redis.call('HSET', mkey, 'previous', span) end
  keep_error(id, err)
  note_start(id)
  note(id, 'retried', reason)
  count(queue, 'retried', 1)
  to_later(queue, id, delay)
end

function verbs.snooze(queue, id, mkey, delay, reason)
  redis.call('HSET', mkey, 'state', 'scheduled')
  note_start(id)
  bump(mkey, 'attempt', -1)
  note(id, 'snoozed', reason)
  count(queue, 'snoozed', 1)
  to_later(queue, id, delay)
end

function verbs.release(queue, id, mkey)
  redis.call('HSET', mkey, 'state', 'ready')
  bump(mkey, 'attempt', -1)
  count(queue, 'released', 1)
  to_ready_where_it_stood(queue, id, redis.call('HGET', mkey, 'score'))
end

function verbs.bury(queue, id, _, _, reason, err)
  end_as('dead', queue, id, reason, err)
end

function verbs.discard(queue, id, _, _, reason, err)
  end_as('cancelled', queue, id, reason, err)
end

function verbs.expire(queue, id, _, _, reason)
  end_as('expired', queue, id, reason, '')
end

function verbs.park(queue, id, mkey, _, reason)
  redis.call('HSET', mkey, 'state', 'parked', 'reason', reason)
  bump(mkey, 'attempt', -1)
  redis.call('ZREM', P .. 'running:' .. queue, id)
  redis.call('ZADD', P .. 'parked:' .. queue, now, id)
  note(id, 'parked', reason)
  count(queue, 'parked', 1)
  tell({id}, 'parked')
end

function verbs.crash(queue, id, _, max, reason, err, _, token)
  local _, fate = crash(queue, id, max, reason, err, token)
  return fate == 2 and CANCELLED or fate == 1 and BURIED or nil
end

-- Of a job that was ended before: what became of it, where that is not what the verb says.
local function fate_of(id, verb)
  local state = redis.call('HGET', META .. id, 'state')
  if state == 'cancelled' and verb ~= 'discard' then return CANCELLED end
  if state == 'dead' and verb == 'crash' then return BURIED end
  return 2
end

local i = 9
while i <= #ARGV do
  local verb, queue = ARGV[i], ARGV[i + 1]
  if verb == 'complete' or verb == 'result' then
    local token, n = ARGV[i + 2], tonumber(ARGV[i + 3])
    local used = '!' .. token
    local ttl = verb == 'result' and ARGV[i + 4]
    i = i + (ttl and 5 or 4)
    local ids, done, linked = {}, 0, {}
    for _ = 1, n do
      local id = ARGV[i]
      local verdict, links = check(id, token, used)
      replies[#replies + 1] = verdict
      if verdict == 1 then
        redis.call('HSET', META .. id, 'state', 'completed', 'token', used, 'finished', now)
        done = done + 1
        ids[done] = id
        if links then
          leave(id, links)
          linked[id] = links
          if ttl then RESULTS[id] = ARGV[i + 1] end
        end
        if ttl then
          redis.call('SET', P .. 'result:' .. id, ARGV[i + 1], 'PX', ttl)
          redis.call('HSET', META .. id, 'kept', int(NOW + ttl))
          soft('SADD', P .. 'extras', id)
        end
      end
      i = i + (ttl and 2 or 1)
    end
    if done > 0 then
      many('ZREM', P .. 'running:' .. queue, ids)
      shelve(queue, 'completed', ids, linked)
    end
  else
    local id, token = ARGV[i + 2], ARGV[i + 3]
    local verdict, links = check(id, token, '!' .. token)
    if verdict == 1 then
      if links then leave(id, links) end
      -- A job that was asked to stop does not run again, whatever became of the attempt.
      redis.call('HSET', META .. id, 'token', '!' .. token)
      local reason = ARGV[i + 5]
      local cancel = (AGAIN[verb] or reason == 'cancelled') and redis.call('HGET', META .. id, 'cancel')
      if cancel then
        if AGAIN[verb] then verdict = CANCELLED end
        verb, reason = 'discard', cancel ~= '' and cancel or 'cancelled'
      end
      local fate = verbs[verb](queue, id, META .. id, tonumber(ARGV[i + 4]), reason, ARGV[i + 6], ARGV[i + 7], token)
      verdict = fate or verdict
    elseif verdict == 2 then
      verdict = fate_of(id, verb)
    end
    replies[#replies + 1] = verdict
    i = i + 8
  end
end
return {replies, EFFECTS, run_work()}
