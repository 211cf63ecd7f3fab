-- For tests: moves the clock that scripts see, where their process told them to look (rf_jobs/testing/clock.py).
-- ARGV: '+<ms>' or '-<ms>' beside the server's own clock, '=<ms>' standing still, '' its own; '1' where leases end by it.
-- What waits for the server's own clock, keys that expire, is moved by as much. Processes have not aged: leases, heartbeats
-- and what else says that somebody is there go along; leases and workers' heartbeats do not, where they are to end.
-- Safe to send twice: the second time the clock stands there already, and nothing moves. Reply: the time there (ms).
local mark, ms = string.sub(ARGV[1], 1, 1), number(string.sub(ARGV[1], 2))
local own = redis.call('TIME')
local at = own[1] * 1000 + math.floor(own[2] / 1000)
if mark == '=' then at = ms elseif mark == '+' then at = at + ms elseif mark == '-' then at = at - ms end
local by = at - NOW
local queues = redis.call('SMEMBERS', P .. 'queues')

local function carry(key)
  local held = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  for i = 1, #held, 2 do redis.call('ZADD', key, 'XX', int(held[i + 1] + by), held[i]) end
end

local OF_THE_LIVING = {
  worker = true, scheduler = true, classes = true, cancels = true, flushed = true, exporter = true, live = true,
}

if ARGV[1] == '' then redis.call('HDEL', P .. 'server', 'clock') else redis.call('HSET', P .. 'server', 'clock', ARGV[1]) end
if by == 0 then return at end
local keys = redis.call('KEYS', P .. '*')
for _, key in ipairs(keys) do
  local ttl = redis.call('PTTL', key)
  if ttl > 0 and not OF_THE_LIVING[string.match(key, '^[^:]+', #P + 1)] then
    if ttl > by then redis.call('PEXPIRE', key, int(ttl - by)) else redis.call('UNLINK', key) end
  end
end
carry(P .. 'schedulers')
carry(P .. 'live')
for _, name in ipairs(redis.call('ZRANGE', P .. 'schedules', 0, -1)) do
  local seen = tonumber(redis.call('HGET', P .. 'schedule:' .. name, 'seen') or '')
  if seen then redis.call('HSET', P .. 'schedule:' .. name, 'seen', int(seen + by)) end
end
redis.call('PUBLISH', P .. 'schedules:sooner', '')
if ARGV[2] ~= '1' then
  carry(P .. 'workers')
  for _, worker in ipairs(redis.call('ZRANGE', P .. 'workers', 0, -1)) do
    local beat = tonumber(redis.call('HGET', P .. 'worker:' .. worker, 'beat') or '')
    if beat then redis.call('HSET', P .. 'worker:' .. worker, 'beat', int(beat + by)) end
  end
  for _, queue in ipairs(queues) do carry(P .. 'running:' .. queue) end
end
local timer = tonumber(redis.call('ZRANGE', P .. 'timers', 0, 0, 'WITHSCORES')[2])
for _, queue in ipairs(queues) do
  local due = tonumber(redis.call('ZRANGE', P .. 'later:' .. queue, 0, 0, 'WITHSCORES')[2])
  due = math.min(due or at + 1, timer or at + 1)
  if due <= at then wake(queue, 1) end
end
return at
