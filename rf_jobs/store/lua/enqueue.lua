-- Adds jobs. Idempotent by id.
-- ARGV: retention (8 numbers), then groups of: queue, priority, when, options, n, then n times: id, envelope.
--   when: '' = now; '+<ms>' = that much from now; '<ms>' = at that time (server's clock). '!<ms>' behind it: if it has
--   not started within so much from now it expires.
--   options: '' or JSON, see admit.lua.
-- Reply: {NOW, what is to be said of some: flat position (1-based, over all groups), code, detail; effects; left in outbox}
--   codes: known (it was there already), unique (detail: the holder), no_parent (which), batch (its state), limited, dropped
--   (ms until a slot is free): nothing was written; delayed (ms), waits (blocked or over): it is in, but not where one would think.
retained = retention(1)
local replies = {}
local i, asked = 9, {}
-- Nothing is written before it is sure that all can be: these raise where a key is no sorted set, or options are not JSON.
while i <= #ARGV do
  redis.call('ZCARD', P .. 'ready:' .. ARGV[i])
  redis.call('ZCARD', P .. 'later:' .. ARGV[i])
  redis.call('ZCARD', P .. 'blocked:' .. ARGV[i])
  asked[i] = ARGV[i + 3] ~= '' and cjson.decode(ARGV[i + 3]) or nil
  i = i + 5 + 2 * tonumber(ARGV[i + 4])
end
local position = 0
i = 9
while i <= #ARGV do
  local queue, priority, n = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 4])
  local when, valid = string.match(ARGV[i + 2], '^([^!]*)!?(%d*)$')
  local opts = asked[i]
  local due
  if string.sub(when, 1, 1) == '+' then
    due = NOW + tonumber(string.sub(when, 2))
  elseif when ~= '' then
    due = tonumber(when)
  end
  local jobs = {}
  for k = 1, 2 * n do jobs[k] = ARGV[i + 4 + k] end
  local _, said = admit(queue, priority, due, valid, opts, jobs)
  for k = 1, #said, 3 do
    replies[#replies + 1] = position + said[k]
    replies[#replies + 1] = said[k + 1]
    replies[#replies + 1] = said[k + 2]
  end
  position = position + n
  i = i + 5 + 2 * n
end
return {NOW, replies, EFFECTS, run_work()}
