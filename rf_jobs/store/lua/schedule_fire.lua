-- Ticks that are due: dispatches their jobs and moves their schedules on, in one step. Whoever comes second finds it done.
-- ARGV: retention (8 numbers), scheduler, ms after which what no code names is orphaned, then groups of: name, tick that is waited
--   for, revision, tick to run ('' for none), next tick, when that is due (both '' for none), missed, error, and of the tick's
--   job: id, queue, priority, ms after which it expires (''), options (JSON or ''), class, envelope.
--   A group whose first tick is '' is a run out of turn: nothing moves on.
-- Reply: {for each: code, detail; effects; left in the outbox}
--   codes: fired (detail: ms that it was late), moved (nothing was to run), taken (somebody else did it), paused, changed (another
--   revision), gone, early (detail: ms until it is due), orphaned (first seen as such), refused (detail: what was said of the
--   dispatch, which went no further; the schedule moved on)
local N = 15
retained = retention(1)
local me, orphan = ARGV[9], tonumber(ARGV[10])
local found = {}
for i = 11, #ARGV, N do
  found[#found + 1] = soft('HMGET', P .. 'schedule:' .. ARGV[i], 'rev', 'next', 'due', 'paused', 'source', 'seen', 'from',
    'by', 'job', 'lag', 'refused')
  if ARGV[i + 9] ~= '' then
    redis.call('ZCARD', P .. 'ready:' .. ARGV[i + 9])
    redis.call('ZCARD', P .. 'later:' .. ARGV[i + 9])
  end
end
soft('ZCARD', P .. 'schedules')

-- Why this tick is not to be fired; nil where it is.
local function objection(i, m)
  local expected, job = ARGV[i + 1], ARGV[i + 8]
  if not m[1] then return 'gone', '' end
  if expected == '' then
    if m[9] == job then return 'fired', '0' end
    return nil
  end
  if m[7] == expected and m[8] == me then -- our own call, sent again
    if ARGV[i + 3] == '' then return 'moved', '' end
    if m[11] and m[11] ~= '' then return 'refused', m[11] end
    return 'fired', m[10] or '0' -- its job need not be the last: another may have run out of turn since
  end
  if m[2] ~= expected then return 'taken', '' end
  if m[4] then return 'paused', '' end
  if m[1] ~= ARGV[i + 2] then return 'changed', '' end
  if number(m[3]) > NOW then return 'early', int(number(m[3]) - NOW) end
end

local function dispatch(i)
  local job = ARGV[i + 8]
  local opts = ARGV[i + 12] ~= '' and cjson.decode(ARGV[i + 12]) or {}
  opts.job_class = opts.job_class or ARGV[i + 13]
  opts.links = (opts.links or '') .. ' s' .. ARGV[i]
  local _, said = admit(ARGV[i + 9], tonumber(ARGV[i + 10]), nil, ARGV[i + 11], opts, {job, ARGV[i + 14]})
  local code = said[2]
  if code and code ~= 'known' and code ~= 'delayed' and code ~= 'waits' then return code end
end

local function fire(i, m)
  local name, expected, run, tick, due = ARGV[i], ARGV[i + 1], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  local missed, err = tonumber(ARGV[i + 6]), ARGV[i + 7]
  local key = P .. 'schedule:' .. name
  local code, detail = objection(i, m)
  if code then
    if code == 'early' or code == 'changed' then soft('ZADD', P .. 'schedules', m[3] ~= '' and m[3] or '+inf', name) end
    return code, detail
  end
  if expected ~= '' and m[5] == 'code' and NOW - number(m[6]) > orphan then
    soft('HSET', key, 'orphaned', int(NOW))
    soft('ZADD', P .. 'schedules', '+inf', name)
    return 'orphaned', ''
  end
  local refused = run ~= '' and dispatch(i)
  if refused and expected == '' then return 'refused', refused end
  local late = expected ~= '' and math.max(0, NOW - number(m[3])) or 0
  if refused == 'unique' then
    bump(key, 'overlaps', 1)
  elseif refused then
    missed, err = missed + 1, 'the dispatch was refused: ' .. refused
  elseif run ~= '' then
    soft('HSET', key, 'tick', run, 'ran', int(NOW), 'job', ARGV[i + 8], 'lag', int(late))
    soft('HDEL', key, 'error')
    bump(key, 'fired', 1)
  end
  if expected ~= '' then
    soft('HSET', key, 'next', tick, 'due', due, 'from', expected, 'by', me, 'refused', refused or '')
    soft('ZADD', P .. 'schedules', due ~= '' and due or '+inf', name)
  end
  if missed > 0 then
    bump(key, 'missed', missed)
    soft('HSET', key, 'missed_at', int(NOW))
  end
  if err ~= '' then soft('HSET', key, 'error', err, 'failed', int(NOW)) end
  if refused then return 'refused', refused end
  if run == '' then return 'moved', '' end
  return 'fired', int(late)
end

local replies = {}
for at, m in ipairs(found) do
  local code, detail = fire(11 + (at - 1) * N, m)
  replies[#replies + 1] = code
  replies[#replies + 1] = detail
end
return {replies, EFFECTS, run_work()}
