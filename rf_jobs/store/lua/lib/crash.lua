-- Takes a running job from a worker that died: back to where it stood, or, once it has cost too many workers their
-- life, to the dead letters as poison. Not an attempt; crashes are counted apart. Returns the crashes and what
-- became of it: 0 ready again, 1 dead, 2 cancelled.
local function crash(queue, id, max, reason, err, token)
  local mkey = P .. 'meta:' .. id
  local m = meta_of(id, 'attempt', 'epoch', 'score', 'cancel', 'links')
  local crashes = bump(mkey, 'crashes', 1)
  redis.call('ZREM', P .. 'running:' .. queue, id)
  if m[5] then leave(id, m[5]) end
  if not string.find(err, '"attempt":', 1, true) then
    -- Whoever reports the death of a process does not know what it was doing.
    local worker = string.match(token, '^[%w]+') or ''
    err = string.format('{"worker":"%s","attempt":%s,"started":%s,%s', worker,
      int(number(m[1])), int(number(m[2])), string.sub(err, 2))
  end
  keep_error(id, err)
  note_start(id)
  note(id, 'reclaimed', reason)
  count(queue, 'reclaimed', 1)
  if m[4] then -- it was asked to stop: it does not run again
    conclude(queue, 'cancelled', id, m[4])
    return crashes, 2
  end
  if crashes >= max then
    conclude(queue, 'dead', id, 'poison')
    return crashes, 1
  end
  redis.call('HSET', mkey, 'state', 'ready')
  bump(mkey, 'attempt', -1)
  to_ready_where_it_stood(queue, id, m[3])
  return crashes, 0
end
