-- The dispatch of these batches is complete: they end when their members have. Inner ones first.
-- ARGV: retention (8 numbers), abandoned ('1': whoever dispatched them is gone), then ids. Reply: {effects, left in the outbox}
retained = retention(1)
for i = 10, #ARGV do
  local key = P .. 'batch:' .. ARGV[i]
  redis.call('ZREM', P .. 'batches:unsealed', ARGV[i])
  if redis.call('EXISTS', key) == 1 and redis.call('HSETNX', key, 'sealed', int(NOW)) == 1 then
    if ARGV[9] == '1' then redis.call('HSET', key, 'abandoned', 1) end
    look_at(ARGV[i])
  end
end
return {EFFECTS, run_work()}
