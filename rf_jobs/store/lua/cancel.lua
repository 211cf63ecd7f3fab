-- Cancels a job before it runs, or asks its worker to stop it.
-- ARGV: id, queue by the envelope, reason, retention (8 numbers).
-- Reply: {state it was in, or ''; 1 when something was done; effects; left in the outbox}
local id, queue, reason = ARGV[1], ARGV[2], ARGV[3]
retained = retention(4)
local m = meta_of(id, 'state', 'token')
if m[1] == 'running' then
  ask_to_stop(id, m[2], reason)
  return {'running', 1, EFFECTS, 0}
end
local state = take_waiting(queue, id)
if state then
  redis.call('HSET', P .. 'meta:' .. id, 'asked', int(NOW))
  conclude(queue, 'cancelled', id, reason)
  return {state, 1, EFFECTS, run_work()}
end
return {m[1] or '', 0, EFFECTS, 0}
