-- A worker's heartbeat: it lives, it still works on these jobs.
-- ARGV: worker, believed for ms, lease ms, number of fields, then name, value ..., then queue, id, token of leases to extend.
-- Reply: {NOW, instance id of the server, ids whose lease is lost, ids to stop}
local worker, believed, lease, n = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local wkey = P .. 'worker:' .. worker
local lost = {}
soft('ZADD', P .. 'workers', int(NOW + believed), worker)
local fields = {'beat', int(NOW)}
for i = 5, 4 + 2 * n do fields[#fields + 1] = ARGV[i] end
soft('HSET', wkey, unpack(fields))
redis.call('PEXPIRE', wkey, believed + 60000)
for i = 5 + 2 * n, #ARGV, 3 do
  local queue, id, token = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if redis.pcall('HGET', P .. 'meta:' .. id, 'token') == token then
    redis.call('ZADD', P .. 'running:' .. queue, 'XX', int(NOW + lease), id)
  else
    lost[#lost + 1] = id
  end
end
local stop = soft('SMEMBERS', P .. 'cancels:' .. worker)
for _, id in ipairs(stop) do
  local token = meta_of(id, 'token')[1] or ''
  if string.sub(token, 1, #worker) ~= worker then soft('SREM', P .. 'cancels:' .. worker, id) end
end
return {NOW, soft('HGET', P .. 'server', 'instance') or '', lost, stop}
