-- Adds a process's metric deltas, once. ARGV: source, flush number, n, then n times: field, increment; then field, exemplar ...
local key = P .. 'flushed:' .. ARGV[1]
local number = tonumber(ARGV[2])
if tonumber(redis.call('GET', key) or '0') >= number then return 0 end
local n = tonumber(ARGV[3])
for i = 4, 3 + 2 * n, 2 do redis.call('HINCRBYFLOAT', P .. 'metrics', ARGV[i], ARGV[i + 1]) end
for i = 4 + 2 * n, #ARGV, 2 do redis.call('HSET', P .. 'exemplars', ARGV[i], ARGV[i + 1]) end
redis.call('SET', key, ARGV[2], 'PX', 3600000)
return 1
