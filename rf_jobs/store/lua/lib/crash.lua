-- Takes a running job from a worker that died: back to where it stood, or, once it has cost too many workers their
-- life, to the dead letters as poison. Not an attempt; crashes are counted apart. Returns the crashes and what
-- became of it: 0 ready again, 1 dead, 2 cancelled.
local function crash(queue, id, max, reason, err, keep)
  local mkey = P .. 'meta:' .. id
  local crashes = redis.call('HINCRBY', mkey, 'crashes', 1)
  redis.call('ZREM', P .. 'running:' .. queue, id)
  keep_error(id, err)
  note(id, 'reclaimed', reason)
  count(queue, 'reclaimed', 1)
  local cancel = redis.call('HGET', mkey, 'cancel')
  if cancel then -- it was asked to stop: it does not run again
    redis.call('HSET', mkey, 'state', 'cancelled', 'finished', int(NOW), 'reason', cancel)
    redis.call('ZADD', P .. 'cancelled:' .. queue, int(NOW), id)
    count(queue, 'cancelled', 1)
    announce({id}, 'cancelled')
    collect(queue, 'cancelled', 'cancelled', keep.cancelled[1], keep.cancelled[2])
    return crashes, 2
  end
  if crashes >= max then
    redis.call('HSET', mkey, 'state', 'dead', 'queue', queue, 'finished', int(NOW), 'reason', 'poison')
    redis.call('ZADD', P .. 'dead:' .. queue, int(NOW), id)
    note(id, 'dead', 'poison')
    count(queue, 'dead', 1)
    announce({id}, 'dead')
    collect(queue, 'dead', 'dead', keep.dead[1], keep.dead[2])
    return crashes, 1
  end
  redis.call('HSET', mkey, 'state', 'ready')
  redis.call('HINCRBY', mkey, 'attempt', -1)
  redis.call('ZADD', P .. 'ready:' .. queue, redis.call('HGET', mkey, 'score') or int(reserve(1) + band(1)), id)
  wake(queue, 1)
  return crashes, 0
end
