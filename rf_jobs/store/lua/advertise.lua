-- A worker says which job classes it can run. Workers of one release share one list.
-- ARGV: worker, digest of the list, the list (JSON), for how long it is kept (ms).
local wkey = P .. 'worker:' .. ARGV[1]
redis.call('HSET', wkey, 'classes', ARGV[2])
if redis.call('PTTL', wkey) < 0 then redis.call('PEXPIRE', wkey, ARGV[4]) end -- its first heartbeat may be yet to come
redis.call('SET', P .. 'classes:' .. ARGV[2], ARGV[3], 'PX', ARGV[4])
return 1
