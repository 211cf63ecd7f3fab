-- Takes back jobs whose lease has run out, and forgets workers that are long gone.
-- ARGV: limit, max crashes, retention (8 numbers), error JSON, then queues.
-- Reply: {taken, effects, left in the outbox}; taken is flat: queue, id, crashes, fate (0 ready, 1 dead, 2 cancelled), and of the lost lease: token, attempt, when it was taken, score; envelope
local limit, max = tonumber(ARGV[1]), tonumber(ARGV[2])
retained = retention(3)
local taken = {}
local left = limit
for q = 12, #ARGV do
  if left <= 0 then break end
  local queue = ARGV[q]
  local ids = redis.call('ZRANGEBYSCORE', P .. 'running:' .. queue, '-inf', int(NOW), 'LIMIT', 0, left)
  left = left - #ids
  for _, id in ipairs(ids) do
    local m = meta_of(id, 'token', 'attempt', 'epoch', 'score')
    local token = m[1] or ''
    redis.call('HSET', P .. 'meta:' .. id, 'token', '') -- nobody's: a zombie is fenced
    local data = redis.call('GET', P .. 'job:' .. id) or ''
    local crashes, fate = crash(queue, id, max, 'lease expired ' .. token, ARGV[11], token)
    local lost = {queue, id, crashes, fate, token, int(number(m[2])), int(number(m[3])), int(number(m[4])), data}
    for _, value in ipairs(lost) do taken[#taken + 1] = value end
  end
end
-- Workers that have been silent for an hour are not listed any more.
soft('ZREMRANGEBYSCORE', P .. 'workers', '-inf', int(NOW - 3600000))
return {taken, EFFECTS, run_work()}
