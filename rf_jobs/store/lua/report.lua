-- What running jobs say of themselves: progress, log lines, and that they were told to stop. Many jobs at once.
-- ARGV: most lines and most bytes of a job's log, then for each job: id, token, '1' if it was told to stop, progress (JSON
--   or ''), the number of its first line (counted from 1 in each attempt), n, then n lines (JSON).
-- Reply: for each job -1: the lease is not held, nothing was kept; 0: kept; more, where it is the first word of its having
--   been told to stop: 1 + the ms since it was asked to.
-- A log is a list; its first element says '<bytes> <lines dropped> <token of the last writer> <number of its last line>',
-- so that lines sent again are not kept twice.
local most, most_bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local replies = {}

local function keep_lines(id, token, first, from, n)
  local key = P .. 'joblog:' .. id
  local head = redis.pcall('LPOP', key)
  if type(head) == 'table' then
    redis.call('UNLINK', key)
    head = false
  end
  local bytes, dropped, writer, last = string.match(head or '', '^(%d+) (%d+) (%S+) (%d+)$')
  bytes, dropped, last = number(bytes), number(dropped), writer == token and number(last) or 0
  local missed = first - last - 1
  if missed > 0 then -- the worker had to drop some, so what comes now fills the log
    dropped = dropped + missed + soft('LLEN', key)
    bytes = 0
    redis.call('UNLINK', key)
  end
  for i = math.max(0, -missed), n - 1 do
    soft('RPUSH', key, ARGV[from + i])
    bytes = bytes + #ARGV[from + i]
  end
  local left = soft('LLEN', key)
  while left > most or (bytes > most_bytes and left > 1) do
    bytes = bytes - #soft('LPOP', key)
    dropped = dropped + 1
    left = left - 1
  end
  last = math.max(last, first + n - 1)
  soft('LPUSH', key, table.concat({int(bytes), int(dropped), token, int(last)}, ' '))
end

local function acknowledge(id, token)
  local m = meta_of(id, 'cancel', 'asked', 'heard')
  soft('SREM', P .. 'cancels:' .. (string.match(token, '^[^.]+') or ''), id)
  if not m[1] or m[3] then return 0 end
  redis.call('HSET', P .. 'meta:' .. id, 'heard', int(NOW))
  return 1 + math.max(0, NOW - (tonumber(m[2] or '') or NOW))
end

local i = 3
while i <= #ARGV do
  local id, token, told, progress, first, n = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5])
  local reply = -1
  if redis.pcall('HGET', P .. 'meta:' .. id, 'token') == token then
    reply = told == '1' and acknowledge(id, token) or 0
    if progress ~= '' then redis.call('SET', P .. 'progress:' .. id, progress) end
    if n > 0 then keep_lines(id, token, first, i + 6, n) end
    if progress ~= '' or n > 0 then soft('SADD', P .. 'extras', id) end
    tell({id}, progress ~= '' and (n > 0 and 'progress log' or 'progress') or n > 0 and 'log' or 'cancel')
  end
  replies[#replies + 1] = reply
  i = i + 6 + n
end
return replies
