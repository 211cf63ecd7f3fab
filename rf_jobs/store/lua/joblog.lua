-- A part of a job's log. ARGV: id, after which line (0: from the first that is kept), how many.
-- Reply: {number of the first line that is answered, lines}
local key = P .. 'joblog:' .. ARGV[1]
local head = redis.pcall('LINDEX', key, 0)
if type(head) ~= 'string' then return {1, {}} end
local dropped = number(string.match(head, '^%d+ (%d+)'))
local from = math.max(tonumber(ARGV[2]) - dropped, 0) + 1
return {dropped + from, redis.call('LRANGE', key, from, from + tonumber(ARGV[3]) - 1)}
