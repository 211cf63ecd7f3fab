"""The demo's figures, and how they are shown."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TypedDict

from rf_jobs import JobRecord
from rf_jobs.core.records import QueueInfo
from rf_jobs.demo.checks import Verdicts


class Latency(TypedDict):
    """Milliseconds."""

    p50: float
    p99: float


class Figures(TypedDict):
    """What was measured. Latencies are those of jobs that were dispatched to run at once and needed one attempt."""

    seconds: float
    states: dict[str, int]
    dispatched: int
    completed: int
    throughput_per_second: float
    dispatch_to_start_ms: Latency
    dispatch_to_done_ms: Latency
    retries: int
    reclaimed: int
    replayed: int
    metrics: list[str]


def figures(queues: list[QueueInfo], records: list[JobRecord], took: float, urls: list[str]) -> Figures:
    """Sum up a run."""
    states: Counter[str] = Counter()
    ledger: Counter[str] = Counter()
    for queue in queues:
        states.update(queue.counts)
        ledger.update(queue.ledger)
    prompt = [r for r in records if r.attempt == 1 and not r.crashes and not r.was_delayed]
    starts = _since_dispatch([(r.dispatched_at, r.started_at) for r in prompt])
    ends = _since_dispatch([(r.dispatched_at, r.finished_at) for r in prompt])
    return {
        "seconds": round(took, 1),
        "states": dict(states),
        "dispatched": ledger["dispatched"],
        "completed": ledger["completed"],
        "throughput_per_second": round(ledger["completed"] / took, 1),
        "dispatch_to_start_ms": _latency(starts),
        "dispatch_to_done_ms": _latency(ends),
        "retries": ledger["retried"],
        "reclaimed": ledger["reclaimed"],
        "replayed": ledger["replayed"],
        "metrics": urls,
    }


def _since_dispatch(times: list[tuple[datetime | None, datetime | None]]) -> list[float]:
    return sorted((then - at).total_seconds() * 1000 for at, then in times if at is not None and then is not None)


def _latency(values: list[float]) -> Latency:
    if not values:
        return {"p50": 0.0, "p99": 0.0}
    return {
        "p50": round(values[len(values) // 2], 1),
        "p99": round(values[min(len(values) - 1, len(values) * 99 // 100)], 1),
    }


def print_summary(found: Figures, verdicts: Verdicts) -> None:
    """For people."""
    start, done = found["dispatch_to_start_ms"], found["dispatch_to_done_ms"]
    print(f"\n{found['completed']} jobs completed in {found['seconds']} s ({found['throughput_per_second']:.0f}/s)")
    print("states      " + ", ".join(f"{n} {state}" for state, n in found["states"].items() if n))
    print(f"started     p50 {start['p50']} ms, p99 {start['p99']} ms after dispatch")
    print(f"done        p50 {done['p50']} ms, p99 {done['p99']} ms after dispatch")
    print(
        f"retries     {found['retries']}, taken back from a dead worker {found['reclaimed']}, replayed {found['replayed']}"
    )
    for name, row in verdicts.rows.items():
        print(f"{'ok  ' if row['ok'] else 'FAIL'}  {name}: {row['seen']}")
    print("metrics were at " + ", ".join(found["metrics"]))
