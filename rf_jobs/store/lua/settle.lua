-- Does what earlier scripts left in the outbox, a bounded part of it, oldest first.
-- ARGV: retention (8 numbers). Reply: {effects, left in the outbox}
retained = retention(1)
for _, item in ipairs(redis.call('LPOP', P .. 'outbox', 50) or {}) do WORK[#WORK + 1] = cjson.decode(item) end
return {EFFECTS, run_work()}
