"""20,000 jobs, two workers, one ``kill -9`` every second: ``python -m benchmarks.kill``.

By turns only a worker process dies (its supervisor must notice) and a supervisor with all its children (as when a
machine dies; the other worker must reclaim, and we start a new one). Each job leaves its start and its end on a second
server. At the end: none lost, none stuck, none dead, the books balanced (``rf-jobs doctor --deep``), and no job ran
twice but those in flight at a kill. ``max_crashes`` is out of the way: here the workers die by our hand, not the jobs'.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import cast

from benchmarks.apps.kill_app import EFFECTS, EFFECTS_VARIABLE, SLEEP_VARIABLE
from benchmarks.effects import judge, runs_of
from benchmarks.measure import URL_VARIABLE
from benchmarks.ours import ask, bulk, our_worker, parser, verdict
from benchmarks.peer import Command
from benchmarks.peers.rf_jobs import QUEUE, unfinished
from benchmarks.processes import Program, enqueuing, environment
from benchmarks.server import Server, find_server, private_server

IMPORTS = "benchmarks.apps.kill_app"
EXAMPLES = 10
LEFT_TO_THE_LIVING = 0.05
"""The share of the jobs during which nobody is killed: at the end only those wait whose leases must first run out."""
UNFINISHED = ("ready", "scheduled", "blocked", "parked", "running", "dead")


class Fleet:
    """Two workers that don't live long."""

    def __init__(self, stack: ExitStack, server: Server, extra: dict[str, str], size: int) -> None:
        self._stack, self._server, self._extra = stack, server, extra
        self._workers = [self._start() for _ in range(size)]
        self._turn = 0
        self._chance = random.Random(11)
        self.kills: dict[int, int] = {}
        """When each killed process died, by its id."""

    @property
    def kill_count(self) -> int:
        return self._turn

    def _start(self) -> Program:
        return self._stack.enter_context(our_worker(self._server, IMPORTS, self._extra))

    def kill_one(self) -> None:
        """A worker process, or next time a whole tree, which is started anew."""
        self._turn += 1
        at = self._chance.randrange(len(self._workers))
        children = self._workers[at].children()
        if self._turn % 2 and children:
            victims = [self._chance.choice(children)]
            subprocess.run(["kill", "-9", str(victims[0])], check=False, stderr=subprocess.DEVNULL)
        else:
            victims = self._workers[at].kill()
            self._workers[at] = self._start()
        self.kills.update(dict.fromkeys(victims, time.monotonic_ns()))

    def said(self) -> list[str]:
        """The end of what each living one printed."""
        return [worker.said()[-500:] for worker in self._workers]


def main(argv: Sequence[str] | None = None) -> int:
    """0 when nothing was lost, stuck or done twice without cause."""
    options = parser(__doc__)
    options.add_argument("--jobs", type=int, default=20_000)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--every", type=float, default=1.0, help="seconds between kills")
    options.add_argument("--sleep", type=float, default=0.2, help="seconds that each job takes")
    options.add_argument("--window", type=float, default=0.5, help="seconds an acknowledgement may be under way")
    options.add_argument("--stuck", type=float, default=60.0, help="seconds without progress that mean stuck")
    args = options.parse_args(argv)
    program = find_server(args.server)
    with private_server(program) as server, private_server(program) as other, ExitStack() as stack:
        extra = {EFFECTS_VARIABLE: other.url, SLEEP_VARIABLE: str(args.sleep), "RF_JOBS_WORKER_MAX_CRASHES": "10000"}
        client = Command([sys.executable, "-m", IMPORTS])
        with enqueuing(client, {URL_VARIABLE: server.url, **extra}) as enqueuer:
            bulk(enqueuer, args.jobs)
        fleet = Fleet(stack, server, extra, args.workers)
        started = time.monotonic()
        left = slaughter(fleet, server, args.jobs, args.every, args.stuck)
        seconds = time.monotonic() - started
        lines = cast("list[str]", other.redis.lrange(EFFECTS, 0, -1))
        counts = ask(server, lambda manager: manager.counts(QUEUE))
        sound, doctor = examine(server)
        said = fleet.said() if left else []
    judged = judge(args.jobs, runs_of(lines), fleet.kills, round(args.window * 1e9))
    found: dict[str, object] = {
        "jobs": args.jobs,
        "kills": fleet.kill_count,
        "seconds": round(seconds, 1),
        "lost": len(judged.lost),
        "twice_in_flight": judged.twice_in_flight,
        "twice_wrongly": len(judged.twice_wrongly),
        "for_example": [*judged.lost[:EXAMPLES], *judged.twice_wrongly[:EXAMPLES]],
        "stuck": left,
        "left": {state: counts[state] for state in UNFINISHED if counts[state]},
        "ledger_conserved": sound,
        "doctor": [] if sound else doctor.splitlines()[-20:],
        "workers_said": said,
    }
    met = sound and not (left or judged.lost or judged.twice_wrongly or found["left"])
    return verdict("kill", cast("Path", args.output), found, met=met)


def slaughter(fleet: Fleet, server: Server, jobs: int, every: float, stuck: float) -> int:
    """Kill until nothing is left to do; answers with the jobs that are stuck."""
    _until_running(server, jobs, stuck)
    least, moved, next_kill = jobs, time.monotonic(), time.monotonic() + every
    while left := unfinished(server.redis):
        now = time.monotonic()
        if left < least:
            least, moved = left, now
        elif now - moved > stuck:
            return left
        if now >= next_kill and left > jobs * LEFT_TO_THE_LIVING:
            fleet.kill_one()
            next_kill = now + every
            print(f"{left:>7,} jobs left, {fleet.kill_count} kills", file=sys.stderr, flush=True)
        time.sleep(0.05)
    return 0


def _until_running(server: Server, jobs: int, patience: float) -> None:
    deadline = time.monotonic() + patience
    while unfinished(server.redis) == jobs and time.monotonic() < deadline:
        time.sleep(0.05)


def examine(server: Server) -> tuple[bool, str]:
    """Whether the ledger agrees with the queue, and what the doctor said."""
    program = Path(sys.executable).parent / "rf-jobs"
    done = subprocess.run(
        [str(program), "doctor", "--deep", "--redis-url", server.url],
        check=False,
        capture_output=True,
        text=True,
        env=environment({}),
    )
    return done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    raise SystemExit(main())
