-- Buries jobs that were parked longer than allowed.
-- ARGV: queue, older than ms, limit, retention (8 numbers), error JSON of an unknown class, of a job that nobody could open.
-- Reply: {flat id and reason; effects, left in the outbox}
-- Why a job was parked may begin with a code and a colon; without, its class is what no worker knew.
local queue = ARGV[1]
retained = retention(4)
local key = P .. 'parked:' .. queue
local ids = soft('ZRANGEBYSCORE', key, '-inf', int(NOW - tonumber(ARGV[2])), 'LIMIT', 0, tonumber(ARGV[3]))
local buried, UNKNOWN = {}, 'unknown_class'
for _, id in ipairs(ids) do
  local code = string.match(meta_of(id, 'reason')[1] or '', '^([%l_]+): ') or UNKNOWN
  soft('ZREM', key, id)
  keep_error(id, ARGV[code == UNKNOWN and 12 or 13])
  conclude(queue, 'dead', id, code)
  buried[#buried + 1] = id
  buried[#buried + 1] = code
end
return {buried, EFFECTS, run_work()}
