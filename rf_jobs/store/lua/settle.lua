-- Does what earlier scripts left in the outbox, a bounded part of it, oldest first; and closes batches whose dispatch nobody has
-- completed.
-- ARGV: retention (8 numbers), ms after which a dispatch is taken for abandoned. Reply: {effects, left in the outbox}
retained = retention(1)
from_outbox = true
repeat
  local items = soft('LPOP', P .. 'outbox', 50) or {}
  for _, item in ipairs(items) do
    local ok, what = pcall(cjson.decode, item)
    if ok and type(what) == 'table' then WORK[#WORK + 1] = what end
  end
until not do_work() or #items == 0
local unsealed = P .. 'batches:unsealed'
for _, batch in ipairs(soft('ZRANGEBYSCORE', unsealed, '-inf', int(NOW - tonumber(ARGV[9])), 'LIMIT', 0, 20)) do
  soft('ZREM', unsealed, batch)
  if soft('HSETNX', P .. 'batch:' .. batch, 'sealed', int(NOW)) == 1 then
    soft('HSET', P .. 'batch:' .. batch, 'abandoned', 1)
    look_at(batch)
  end
end
return {EFFECTS, run_work()}
