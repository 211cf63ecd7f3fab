"""Resident memory of one worker process over 500,000 jobs: ``python -m benchmarks.growth``.

The first rounds fill its caches and buffers; from then on it must not grow.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.ours import fill, our_worker, parser, until_left, verdict
from benchmarks.processes import MEGABYTE
from benchmarks.server import find_server, private_server

SETTLE_SECONDS = 1.5


def main(argv: Sequence[str] | None = None) -> int:
    """0 when it did not grow."""
    options = parser(__doc__)
    options.add_argument("--jobs", type=int, default=500_000)
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--warm", type=int, default=2, help="rounds after which it must not grow")
    options.add_argument("--tolerance-mb", type=float, default=1.0)
    args = options.parse_args(argv)
    sizes = measure(find_server(args.server), args.jobs, args.rounds)
    grown = sizes[-1] - sizes[args.warm]
    found: dict[str, object] = {
        "jobs_a_round": args.jobs // args.rounds,
        "rss_mb": [round(size, 2) for size in sizes],
        "grown_mb_after_warm_up": round(grown, 2),
    }
    return verdict("growth", args.output, found, met=grown <= args.tolerance_mb)


def measure(program: str, jobs: int, rounds: int) -> list[float]:
    """Megabytes before the first job and after each round."""
    with private_server(program) as server, our_worker(server) as worker:
        time.sleep(2 * SETTLE_SECONDS)
        sizes = [worker.usage().worker_rss_bytes / MEGABYTE]
        for done in range(1, rounds + 1):
            fill(server, jobs // rounds)
            until_left(server, worker, 0)
            time.sleep(SETTLE_SECONDS)
            sizes.append(worker.usage().worker_rss_bytes / MEGABYTE)
            print(f"after {done * jobs // rounds:>8,} jobs: {sizes[-1]:.2f} MB", flush=True)
    return sizes


if __name__ == "__main__":
    raise SystemExit(main())
