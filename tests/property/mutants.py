"""Whether the state machine would notice: seeded bugs in the scripts, each of which it must find.

``python -m tests.property.mutants``: applies each to the files, runs the test, and puts the files back.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LUA = Path(__file__).parents[2] / "rf_jobs" / "store" / "lua"
MUTANTS = (
    ("finish.lua", "if current == token then return 1 end", "if current then return 1 end", "no fence"),
    ("finish.lua", "if current == used then return 2 end", "if current == used then return 1 end", "an outcome counts twice"),
    ("finish.lua", "bump(mkey, 'attempt', -1)\n  note(id, 'snoozed'", "note(id, 'snoozed'", "a snooze is an attempt"),
    ("finish.lua", "verb, reason = 'discard', cancel ~= '' and cancel or 'cancelled'", "", "a cancelled job runs again"),
    ("finish.lua", "if AGAIN[verb] then verdict = CANCELLED end", "", "a cancellation is announced as a retry"),
    ("finish.lua", "fate == 1 and BURIED or nil", "nil", "a last crash is announced as one of several"),
    ("finish.lua", "many('ZREM', P .. 'running:' .. queue, ids)", "", "a finished job still runs"),
    ("fetch.lua", "int(math.max(number(m[1]) + 1, NOW))", "m[1]", "the fencing token does not grow"),
    ("fetch.lua", "if last[1] == nonce then", "if false then", "a fetch sent again leases again"),
    ("fetch.lua", "and not paused[queue]", "", "a paused queue is served"),
    ("fetch.lua", "count(queue, 'promoted', #ids)", "", "the ledger misses promotions"),
    ("fetch.lua", "int(number(m[3]))", "0", "crashes are forgotten"),
    ("lib/prelude.lua", "return (3 - priority) * BAND", "return priority * BAND", "priorities are upside down"),
    ("lib/prelude.lua", "tonumber(redis.call('GET', P .. 'seq') or '0') + 1, NOW * 512", "0, NOW * 512", "order within a millisecond"),
    ("lib/prelude.lua", "count(queue, 'evicted_' .. state, #victims)", "", "retention is not counted"),
    ("lib/prelude.lua", "if flags[i] == 1 then\n      extras", "if false then\n      extras", "errors outlive their job"),
    ("enqueue.lua", ", 'NX')", ")", "a dispatch sent again enqueues again"),
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
    ("schedule_fire.lua", "'missed', int(missed))", "'missed', 1)", "missed ticks are counted once"),
    ("schedule_put.lua", "known and m[2] == timing and m[7]", "false", "a change of the job loses a tick"),
    ("schedule_put.lua", "if not paused and (orphaned or not stays)", "if orphaned or not stays", "a change ends a pause"),
    ("schedule_pause.lua", "if m[1] ~= ARGV[3] then return -2 end", "", "a resume takes another definition's tick"),
    ("schedule_due.lua", "many('ZADD', P .. 'schedules', hidden)", "", "schedulers are handed the same work"),
)  # fmt: skip


_TESTS = (
    ("schedule_", "tests/property/test_schedule_machine.py"),
    ("report", "tests/property/test_joblog.py"),
    ("joblog", "tests/property/test_joblog.py"),
)
"""Which test is to find the bugs of which scripts; of all others the machine of transitions."""


def survives(name: str, sound: str, broken: str) -> bool:
    """Whether the test passes on the broken script."""
    path = LUA / name
    original = path.read_text()
    if sound not in original:
        raise SystemExit(f"{name} no longer holds {sound!r}: mend the list of mutants")
    path.write_text(original.replace(sound, broken, 1))
    try:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            next((test for start, test in _TESTS if name.startswith(start)), "tests/property/test_transitions.py"),
            "tests/integration/test_order.py",
        ]
        environment = {**os.environ, "RF_JOBS_TEST_EXAMPLES": os.environ.get("RF_JOBS_TEST_EXAMPLES", "400")}
        return subprocess.run(command, capture_output=True, check=False, env=environment).returncode == 0
    finally:
        path.write_text(original)


def main() -> int:
    """Try each; 1 if any survives."""
    alive = 0
    for name, sound, broken, what in MUTANTS:
        lives = survives(name, sound, broken)
        alive += lives
        print(f"{'SURVIVED' if lives else 'killed  '}  {name}: {what}", flush=True)
    print(f"{len(MUTANTS) - alive} of {len(MUTANTS)} killed")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
