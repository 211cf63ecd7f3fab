"""Whether the state machines would notice: seeded bugs in the scripts, each of which they must find.

``python -m tests.property.mutants [word of a bug's name ...]``: applies each to a copy of the tree and runs the tests there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("rf_jobs", "exporters", "tests", "pyproject.toml", "pytest_rf_jobs.py")
LUA = Path("rf_jobs", "store", "lua")
ORDER = "tests/integration/test_order.py"
FLOWS = (
    "tests/property/test_flow_cases.py",
    "tests/property/test_limit_cases.py",
    "tests/property/test_damaged_store.py",
    "tests/property/test_workflows.py",
)
LIMITS = ("tests/property/test_limit_cases.py", "tests/property/test_limits.py")
MUTANTS = (
    ("finish.lua", "if m[1] == token then return 1, m[2] end", "if m[1] then return 1, m[2] end", "no fence"),
    ("finish.lua", "if m[1] == used then return 2 end", "if m[1] == used then return 1, m[2] end", "an outcome counts twice"),
    ("finish.lua", "bump(mkey, 'attempt', -1)\n  note(id, 'snoozed'", "note(id, 'snoozed'", "a snooze is an attempt"),
    ("finish.lua", "verb, reason = 'discard', cancel ~= '' and cancel or 'cancelled'", "", "a cancelled job runs again"),
    ("finish.lua", "if AGAIN[verb] then verdict = CANCELLED end", "", "a cancellation is announced as a retry"),
    ("finish.lua", "fate == 1 and BURIED or nil", "nil", "a last crash is announced as one of several"),
    ("finish.lua", "many('ZREM', P .. 'running:' .. queue, ids)", "", "a finished job still runs"),
    ("fetch.lua", "int(math.max(number(m[1]) + 1, NOW))", "m[1]", "the fencing token does not grow"),
    ("fetch.lua", "if last[1] == nonce then", "if false then", "a fetch sent again leases again"),
    ("fetch.lua", "and not paused[queue]", "", "a paused queue is served"),
    ("fetch.lua", "count(queue, 'promoted', #ids)", "", "the ledger misses promotions"),
    ("fetch.lua", "int(number(was[2]))", "0", "crashes are forgotten"),
    ("lib/prelude.lua", "return (3 - priority) * BAND", "return priority * BAND", "priorities are upside down"),
    ("lib/prelude.lua", "number(soft('GET', P .. 'seq')) + 1, NOW * 512", "0, NOW * 512", "order within a millisecond"),
    ("lib/prelude.lua", "count(queue, 'evicted_' .. state, #victims)", "", "retention is not counted"),
    ("lib/prelude.lua", "if flags[i] == 1 then\n      extras", "if false then\n      extras", "errors outlive their job"),
    ("lib/admit.lua", "jobs[i + 1], 'NX')", "jobs[i + 1])", "a dispatch sent again enqueues again"),
    ("reclaim.lua", "redis.call('HSET', P .. 'meta:' .. id, 'token', '')", "", "a zombie keeps its token"),
    ("lib/crash.lua", "if crashes >= max then", "if crashes > max then", "poison lives longer"),
    ("beat.lua", "'token') == token then", "'token') then", "a zombie extends a lease"),
    ("revive.lua", "'attempt', 0, 'crashes', 0", "'attempt', 0", "crashes survive a replay"),
    ("report.lua", "for i = math.max(0, -missed), n - 1 do", "for i = 0, n - 1 do", "lines sent again are kept twice"),
    ("report.lua", "while left > most or", "while", "a log has no bound by its lines"),
    ("report.lua", "if redis.pcall('HGET', P .. 'meta:' .. id, 'token') == token then", "if true then", "a zombie writes to a log"),
    ("joblog.lua", "math.max(tonumber(ARGV[2]) - dropped, 0) + 1", "tonumber(ARGV[2]) + 1", "lines are numbered from the first that is kept"),
    ("keep.lua", "if redis.call('HGET', P .. 'meta:' .. id, 'token') ~= ARGV[3] then return 0 end", "", "a zombie writes a checkpoint"),
    ("schedule_fire.lua", "if m[2] ~= expected then return 'taken', '' end", "", "two schedulers run one tick"),
    ("schedule_fire.lua", "if m[4] then return 'paused', '' end", "", "a paused schedule runs"),
    ("schedule_fire.lua", "if m[1] ~= ARGV[i + 2] then return 'changed', '' end", "", "an old definition runs"),
    ("schedule_fire.lua", "if number(m[3]) > NOW then", "if false then", "a tick runs before it is due"),
    ("schedule_fire.lua", "bump(key, 'missed', missed)", "bump(key, 'missed', 1)", "missed ticks are counted once"),
    ("schedule_put.lua", "known and m[2] == timing and m[7]", "false", "a change of the job loses a tick"),
    ("schedule_put.lua", "if not paused and (orphaned or damaged or not stays)", "if orphaned or not stays", "a change ends a pause"),
    ("schedule_pause.lua", "if m[1] ~= ARGV[3] then return -2 end", "", "a resume takes another definition's tick"),
    ("schedule_due.lua", "many('ZADD', P .. 'schedules', hidden)", "", "schedulers are handed the same work"),
)  # fmt: skip
FLOW_MUTANTS = (
    ("lib/links.lua", "soft('SREM', P .. 'parents:' .. child, parent) == 0 then return end", "false then return end", "a parent ends twice"),
    ("lib/links.lua", "if soft('SCARD', P .. 'parents:' .. child) == 0 then unblock", "if true then unblock", "the first parent is enough"),
    ("lib/links.lua", "if state ~= 'completed' and m[4] ~= 'run' then", "if state ~= 'completed' then", "on_failure='run' does not"),
    ("lib/links.lua", "elseif onfail ~= 'run' then\n", "elseif false then\n", "a parent that failed before counts as done"),
    ("lib/batches.lua", "if is_stale(id, state) then return end\n  local shard", "local shard", "old news of a member"),
    ("lib/links.lua", "if is_stale(id, state) then return end", "", "old news of a parent"),
    ("lib/links.lua", "if redis.call('EXISTS', key) == 1 then WORK[#WORK + 1] = {'over'", "if false then WORK[#WORK + 1] = {'over'", "a chunk of the dependents is enough"),
    ("lib/batches.lua", "if state then WORK[#WORK + 1] = {'member', batch, id, state} end", "", "a batch waits for who ended before it was told"),
    ("lib/batches.lua", "for _, id in ipairs(ids) do remember_end(id, 'completed', '') end", "", "a member that ended while its batch was being dispatched is forgotten"),
    ("lib/batches.lua", "or soft('HSETNX', key, 'fired:' .. which, int(NOW)) == 0 then", "then soft('HSET', key, 'fired:' .. which, 1)", "callbacks are not known to be called"),
    ("lib/batches.lua", "if soft('SCARD', P .. 'pending:' .. batch) > 0 or", "if", "a batch ends before its members"),
    ("lib/batches.lua", "local b = soft('HMGET', key, 'sealed',", "local b = soft('HMGET', key, 'state',", "a batch ends before it is all there"),
    ("lib/batches.lua", "(failed > 0 or b[8]) and 'failed'", "b[8] and 'failed'", "then after a failure"),
    ("lib/batches.lua", "if #doomed == CHUNK then", "if false then", "a chunk of the doomed is enough"),
    ("lib/batches.lua", "soft('HDEL', key, 'cancelled', 'stopped')", "", "a replayed batch stays cancelled"),
    ("lib/links.lua", "soft('SADD', P .. 'parents:' .. child, parent) -- should", "-- should", "a replayed parent is not waited for"),
    ("lib/links.lua", "if holder == id and mode ~= 'window' then", "if false then", "a lock outlives its holder"),
    ("lib/batches.lua", "redis.call('UNLINK', P .. 'doomed:' .. batch)", "", "a replayed batch goes on dooming"),
    ("lib/links.lua", "for i = next_item, #WORK do", "for i = next_item + 1, #WORK do", "the outbox loses one"),
    ("lib/admit.lua", "soft('HINCRBY', P .. 'batch:' .. opts.batch, 'total', #members)", "", "a batch can't count"),
    ("lib/admit.lua", "opts.batch and redis.call('EXISTS', P .. 'ended:' .. id) == 1", "false", "what is over runs again with its batch"),
    ("lib/prelude.lua", "if string.find(reply.err, 'WRONGTYPE', 1, true) and", "if false and", "a key of the wrong type stops everybody"),
    ("lib/links.lua", "pcall(f, ...)", "true, f(...)", "what is no work stops the rest"),
    ("lib/admit.lua", "if b[2] then return 'cancelled' end", "", "a cancelled batch takes members"),
    ("revive.lua", "WORK[#WORK + 1] = {'reopen', ARGV[i], links}", "", "a replay is not told to its batch"),
    ("clear.lua", "if m[1] then WORK[#WORK + 1] = {'over', id, 'cancelled', m[1]} end", "", "a cleared job is never over"),
    ("bury_parked.lua", "soft('ZREM', key, id)", "", "a buried job stays parked"),
)  # fmt: skip
LIMIT_MUTANTS = (
    ("lib/limits.lua", "many('SADD', P .. 'holders:' .. ref, limit.ids)", "", "nobody holds a limit"),
    ("lib/limits.lua", "release(ref, n) > 0 and redis.call", "redis.call", "who leaves lets nobody in"),
    ("lib/limits.lua", "soft('ZADD', P .. 'timers', 'LT', int(NOW + LOOK_AGAIN), ref)", "", "a place that was not taken is lost"),
    ("lib/limits.lua", "local over = NOW - limit.per", "local over = NOW - limit.per / 2", "a window of half the size"),
    ("lib/limits.lua", "limit.tokens - n)", "limit.tokens)", "a bucket that is never empty"),
    ("lib/crash.lua", "if m[5] then leave(id, m[5]) end", "", "a crash keeps its place"),
    ("finish.lua", "if links then leave(id, links) end\n      --", "--", "a failed attempt keeps its place"),
    ("fetch.lua", "limit.free = limit.free - 1", "", "one fetch takes more than there is"),
    ("lib/limits.lua", "int(math.max(limit.at or NOW + 60000, NOW + 1))", "'+inf'", "nobody looks when a rate has room"),
    ("lib/links.lua", "if held then soft('ZREM', P .. 'held:' .. held, id) end", "", "a cancelled job is still held"),
    ("move.lua", "redis.call('HDEL', mkey, 'held')", "", "a job that was moved is still held"),
    ("lib/prelude.lua", "SPACING / math.max(1, number(weight))", "SPACING", "weights do not count"),
    ("lib/admit.lua", "math.max(at - NOW + r.per, redis.call('PTTL', key))", "at - NOW + r.p", "a distant slot is forgotten"),
)  # fmt: skip

SHARDS = ("tests/property/test_shards_cases.py", "tests/property/test_shards_workflows.py")
SHARD_MUTANTS = (
    ("deliver.lua", "if is_after(ARGV[i], last) then", "if true then", "shards: a word is done twice"),
    ("deliver.lua", "if not do_work() then break end", "", "shards: a word overtakes what the one before it brings"),
    ("lib/batches.lua", " or soft('HLEN', P .. 'expected:' .. batch) > 0", "", "shards: a batch does not wait for whom it expects"),
    ("lib/abroad.lua", "if not b[3] and not b[4] then return end", "if true then return end", "shards: who joins a cancelled batch runs"),
    ("lib/abroad.lua", "if not b[1] or b[2] then return end", "if not b[1] then return end", "shards: who comes too late is a member"),
    ("lib/abroad.lua", "if not state then return depend(child, parent) end", "if not state then return end", "shards: a parent does not know its child"),
    ("lib/links.lua", "if state ~= 'completed' then undone_by(parent, child) end -- should", "-- should", "shards: a child stays undone"),
    ("lib/batches.lua", "if stop ~= '1' then undone_by(batch, id) end\n      send(", "send(", "shards: a cancelled member stays undone"),
    ("lib/batches.lua", "if state then send(shard, 'member', there, id, state) end", "", "shards: a batch waits for who ended before it was told"),
    ("settle.lua", "send(shard, 'verify', ids, batch)", "local _ = ids", "shards: nobody asks after whom a client that died announced"),
    ("lib/batches.lua", "if abroad(batch) then work.stop(id, reason, stop, batch) else", "if false then else", "shards: a batch stops after it was restored"),
    ("lib/abroad.lua", "string.sub(how, 1, 1) == '+'", "false", "shards: a batch completes without a member"),
    ("lib/batches.lua", "if is_stale(id, state) then return end\n  local shard", "local shard", "shards: a batch is told of an end before a replay"),
    ("lib/admit.lua", "if #members > 0 then send(away, 'join', batch_there, members) end", "", "shards: a batch does not hear of its members"),
    ("lib/admit.lua", "if #others_known > 0 then send(away, 'unexpect', batch_there, others_known, false) end", "", "shards: a batch waits for who was there before"),
)  # fmt: skip


_TESTS = (
    ("schedule_", "tests/property/test_schedule_machine.py"),
    ("report", "tests/property/test_joblog.py"),
    ("joblog", "tests/property/test_joblog.py"),
)
"""Which test is to find the bugs of which scripts; of all others the machine of transitions."""


def tests_of(script: str) -> tuple[str, ...]:
    """The tests of a script."""
    return next(
        (test for start, test in _TESTS if script.startswith(start)), "tests/property/test_transitions.py"
    ), ORDER


ALL = (
    *((*mutant, tests_of(mutant[0])) for mutant in MUTANTS),
    *((*mutant, FLOWS) for mutant in FLOW_MUTANTS),
    *((*mutant, LIMITS) for mutant in LIMIT_MUTANTS),
    *((*mutant, SHARDS) for mutant in SHARD_MUTANTS),
)


def survives(tree: Path, name: str, sound: str, broken: str, tests: tuple[str, ...]) -> bool:
    """Whether the tests pass on the broken script."""
    path = tree / LUA / name
    original = path.read_text()
    if sound not in original:
        raise SystemExit(f"{name} no longer holds {sound!r}: mend the list of mutants")
    path.write_text(original.replace(sound, broken, 1))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *tests]
    environment = {
        **os.environ, "RF_JOBS_TEST_EXAMPLES": os.environ.get("RF_JOBS_TEST_EXAMPLES", "400"), "RF_JOBS_TEST_SHRINK": "no",
        "PYTHONPATH": os.pathsep.join([str(tree), str(tree / "exporters")]),
    }  # fmt: skip
    try:
        return subprocess.run(command, capture_output=True, check=False, env=environment, cwd=tree).returncode == 0
    finally:
        path.write_text(original)


def main(words: list[str]) -> int:
    """Try each, or those in whose names these words are; 1 if any survives."""
    chosen = [mutant for mutant in ALL if not words or any(word in mutant[3] for word in words)]
    alive = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for each in COPIED:
            source = ROOT / each
            if source.is_dir():
                shutil.copytree(source, tree / each, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
            else:
                shutil.copy(source, tree / each)
        for name, sound, broken, what, tests in chosen:
            lives = survives(tree, name, sound, broken, tests)
            alive += lives
            print(f"{'SURVIVED' if lives else 'killed  '}  {name}: {what}", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} killed")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
