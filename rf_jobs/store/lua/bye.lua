-- A worker is gone, in good order. ARGV: worker.
redis.call('ZREM', P .. 'workers', ARGV[1])
redis.call('DEL', P .. 'worker:' .. ARGV[1], P .. 'cancels:' .. ARGV[1])
return 1
