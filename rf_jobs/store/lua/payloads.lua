-- The index of payloads that lie in a payload store: nothing is put there before it stands here, and nothing is taken from
-- here before it is removed there. The members' first 36 characters are the id of the job that may need it.
-- ARGV: 'add', ms from now until the first look, names
--       'due', limit, ms from now until the next look. Reply: names of those to look at
--       'drop', names
local key = P .. 'payloads'
if ARGV[1] == 'add' then
  for i = 3, #ARGV do redis.call('ZADD', key, int(NOW + tonumber(ARGV[2])), ARGV[i]) end
  return {}
end
if ARGV[1] == 'drop' then
  redis.call('ZREM', key, unpack(ARGV, 2))
  return {}
end
local found = redis.call('ZRANGEBYSCORE', key, '-inf', int(NOW), 'LIMIT', 0, tonumber(ARGV[2]))
for _, name in ipairs(found) do redis.call('ZADD', key, int(NOW + tonumber(ARGV[3])), name) end
return found
