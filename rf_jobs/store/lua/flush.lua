-- Adds a process's metric deltas, once. ARGV: source, flush number, n, then n times: field, increment; then field, exemplar ...
-- Read, added and written in bulk: two commands for up to a thousand series.
local key = P .. 'flushed:' .. ARGV[1]
local number = tonumber(ARGV[2])
if tonumber(redis.call('GET', key) or '0') >= number then return 0 end
local last = 3 + 2 * tonumber(ARGV[3])
for from = 4, last, 2000 do
  local fields, n = {}, 0
  local to = math.min(from + 1999, last)
  for i = from, to, 2 do
    n = n + 1
    fields[n] = ARGV[i]
  end
  local sums = {}
  for k, value in ipairs(redis.call('HMGET', P .. 'metrics', unpack(fields))) do
    sums[2 * k - 1] = fields[k]
    sums[2 * k] = string.format('%.17g', (tonumber(value or '0') or 0) + tonumber(ARGV[from + 2 * k - 1]))
  end
  redis.call('HSET', P .. 'metrics', unpack(sums))
end
for from = last + 1, #ARGV, 2000 do
  redis.call('HSET', P .. 'exemplars', unpack(ARGV, from, math.min(from + 1999, #ARGV)))
end
redis.call('SET', key, ARGV[2], 'PX', 3600000)
return 1
