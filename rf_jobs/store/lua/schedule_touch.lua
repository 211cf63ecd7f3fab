-- A scheduler says now and then which schedules its code has: they are not orphaned.
-- ARGV: scheduler, then name, revision, ... Reply: positions (1-based) of those that it must put again: they are gone, or another
--   scheduler's code has them otherwise, and that one lives no more.
local me = ARGV[1]
local found = {}
for i = 2, #ARGV, 2 do
  found[#found + 1] = soft('HMGET', P .. 'schedule:' .. ARGV[i], 'rev', 'source', 'orphaned', 'owner')
end
local wrong = {}
for at, m in ipairs(found) do
  local same = m[1] == ARGV[2 * at + 1] and m[2] == 'code' and not m[3]
  local theirs = m[1] and m[2] == 'code' and m[4] ~= me and redis.call('EXISTS', P .. 'scheduler:' .. (m[4] or '')) == 1
  if same or (theirs and not m[3]) then
    soft('HSET', P .. 'schedule:' .. ARGV[2 * at], 'seen', int(NOW))
  else
    wrong[#wrong + 1] = at
  end
end
return wrong
