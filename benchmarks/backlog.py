"""Drain throughput with a backlog of 1,000,000 jobs beside that with 10,000: ``python -m benchmarks.backlog``.

The queue is paused while it is filled. Small backlogs are drained one after the other until as many jobs were timed as
of the large one; the first and the last twentieth of a small backlog are not timed, so that neither waking up nor the
thin end counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from benchmarks.ours import ask, fill, our_worker, parser, until_left, verdict
from benchmarks.peers.rf_jobs import QUEUE
from benchmarks.processes import Program
from benchmarks.server import Server, find_server, private_server

EDGE = 0.05
POLL_SECONDS = 0.005


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the throughputs differ by less than the tolerance."""
    options = parser(__doc__)
    options.add_argument("--large", type=int, default=1_000_000, help="jobs of the large backlog")
    options.add_argument("--small", type=int, default=10_000, help="jobs of the small backlog")
    options.add_argument("--timed", type=int, default=100_000, help="jobs that are timed with each")
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--tolerance", type=float, default=0.1, help="share by which the large may be slower")
    args = options.parse_args(argv)
    program = find_server(args.server)
    rates: dict[int, list[float]] = {args.small: [], args.large: []}
    for _ in range(args.repeat):
        for backlog, found in rates.items():
            found.append(measure(program, backlog, args.timed))
            print(f"backlog {backlog:>9,}: {found[-1]:>9,.0f} jobs/s", flush=True)
    small, large = (statistics.median(rates[size]) for size in (args.small, args.large))
    found_all = {
        "jobs_per_second": {str(size): [round(rate) for rate in found] for size, found in rates.items()},
        "large_to_small": round(large / small, 3),
    }
    return verdict("backlog", args.output, found_all, met=large >= small * (1 - args.tolerance))


def measure(program: str, backlog: int, timed: int) -> float:
    """Jobs a second of one worker process, over ``timed`` jobs or the whole backlog."""
    jobs, seconds = 0, 0.0
    with private_server(program) as server, our_worker(server) as worker:
        while jobs < timed * (1 - 2 * EDGE):
            done, took = drain_one(server, worker, backlog, timed)
            jobs, seconds = jobs + done, seconds + took
    return jobs / seconds


def drain_one(server: Server, worker: Program, backlog: int, timed: int) -> tuple[int, float]:
    """Fill while paused, then time what lies between the edges; answers with jobs and seconds."""
    ask(server, lambda manager: manager.pause(QUEUE))
    fill(server, backlog)
    ask(server, lambda manager: manager.resume(QUEUE))
    edge = round(min(backlog, timed) * EDGE)
    first = until_left(server, worker, backlog - edge, POLL_SECONDS)
    started = time.monotonic()
    last = until_left(server, worker, max(edge, first - timed), POLL_SECONDS)
    took = time.monotonic() - started
    if backlog <= timed:
        until_left(server, worker, 0)
    return first - last, took


if __name__ == "__main__":
    raise SystemExit(main())
