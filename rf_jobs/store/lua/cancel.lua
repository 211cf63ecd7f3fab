-- Cancels a job before it runs, or asks its worker to stop it.
-- ARGV: id, queue by the envelope, reason, keep count, keep age ms.
-- Reply: {state it was in, or ''; 1 when something was done}
local id, reason = ARGV[1], ARGV[3]
local mkey = P .. 'meta:' .. id
local m = meta_of(id, 'state', 'token')
local queue = ARGV[2]
if m[1] == 'running' then
  redis.call('HSET', mkey, 'cancel', reason)
  local key = P .. 'cancels:' .. (string.match(m[2] or '', '^[^.]+') or '')
  redis.call('SADD', key, id)
  redis.call('PEXPIRE', key, 3600000)
  return {'running', 1}
end
local WAITING = {{'ready', 'ready'}, {'later', 'scheduled'}, {'parked', 'parked'}, {'blocked', 'blocked'}}
for _, pair in ipairs(WAITING) do
  if redis.call('ZREM', P .. pair[1] .. ':' .. queue, id) == 1 then
    conclude(queue, 'cancelled', id, reason, {tonumber(ARGV[4]), tonumber(ARGV[5])})
    return {pair[2], 1}
  end
end
return {m[1] or '', 0}
