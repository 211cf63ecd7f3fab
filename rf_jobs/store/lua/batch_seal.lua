-- The dispatch of these batches is complete: they end when their members have. Inner ones first.
-- ARGV: retention (8 numbers), then ids. Reply: {effects, left in the outbox}
retained = retention(1)
for i = 9, #ARGV do
  local key = P .. 'batch:' .. ARGV[i]
  soft('ZREM', P .. 'batches:unsealed', ARGV[i])
  if redis.call('EXISTS', key) == 1 and soft('HSETNX', key, 'sealed', int(NOW)) == 1 then look_at(ARGV[i]) end
end
return {EFFECTS, run_work()}
