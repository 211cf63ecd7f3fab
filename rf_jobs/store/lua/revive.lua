-- Dead letters back to ready, with all their attempts; the history stays.
-- ARGV: queue, retention (8 numbers), then ids. Reply: {the ids that were dead letters of this queue, effects, left in the outbox}
local queue = ARGV[1]
retained = retention(2)
local done = {}
for i = 10, #ARGV do
  if redis.call('ZREM', P .. 'dead:' .. queue, ARGV[i]) == 1 then
    redis.call('HSET', P .. 'meta:' .. ARGV[i], 'attempt', 0, 'crashes', 0)
    redis.call('HDEL', P .. 'meta:' .. ARGV[i], 'finished', 'reason', 'first', 'cancel', 'asked', 'heard', 'kept', 'exp', 'undone')
    note(ARGV[i], 'replayed', '')
    redis.call('UNLINK', P .. 'parents:' .. ARGV[i]) -- of one that ended because of them: it does without
    local links = meta_of(ARGV[i], 'links')[1]
    if links then
      relock(ARGV[i], links)
      WORK[#WORK + 1] = {'reopen', ARGV[i], links}
    end
    run_again(ARGV[i])
    done[#done + 1] = ARGV[i]
  end
end
make_ready(queue, done)
count(queue, 'replayed', #done)
return {done, EFFECTS, run_work()}
