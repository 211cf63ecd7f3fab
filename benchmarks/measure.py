"""The measurements: each is one function of a peer, a fresh server and the options, and answers with numbers by name.

Base units but for what a person reads in a table: microseconds of CPU a job, milliseconds of latency, megabytes.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from benchmarks.peer import Peer
from benchmarks.processes import MEGABYTE, Client, Program, ProgramFailedError, Usage, enqueuing, running
from benchmarks.server import Reading, Server

if TYPE_CHECKING:
    from redis import Redis

URL_VARIABLE = "BENCH_REDIS_URL"
STAMPS_VARIABLE = "BENCH_STAMPS"
POLL_SECONDS = 0.02
STUCK_SECONDS = 60.0
WARM_SHARE = 0.05
"""The share of a drain that isn't counted: the worker starts, connects and loads its scripts in it."""
SETTLE_SECONDS = 1.5
READY_SECONDS = 30.0
PAYLOAD = "x" * 212
Numbers: TypeAlias = dict[str, float]


@dataclass(frozen=True)
class Sizes:
    """How much of each; ``--quick`` has small ones."""

    drain: int = 10_000
    one_by_one: int = 5_000
    concurrent: int = 20_000
    bulk: int = 50_000
    lone: int = 200
    queued: int = 10_000
    memory: int = 50_000
    idle_seconds: float = 5.0
    in_flight: int = 100
    batch: int = 1_000
    pause_ms: int = 30


QUICK = Sizes(
    drain=500, one_by_one=500, concurrent=1_000, bulk=2_000, lone=30, queued=1_000, memory=2_000, idle_seconds=1.0
)


@dataclass(frozen=True)
class Moment:
    """What was read at one instant of a drain; ``own`` are the driver's commands until then."""

    at: float
    remaining: int
    usage: Usage
    reading: Reading
    own: int


def drain(peer: Peer, server: Server, sizes: Sizes) -> Numbers:
    """No-op jobs, all enqueued before one worker process starts, until the last one is acknowledged."""
    count = sizes.drain * peer.scale
    _fill(peer, server, count, sizes)
    with running(peer.worker(server.url), _environment(server)) as worker:
        start, end = watch_drain(peer.remaining, peer.probes, server, worker, count)
    jobs = start.remaining - end.remaining
    seconds = end.at - start.at
    commands = end.reading.commands - start.reading.commands - (end.own - start.own)
    return {
        "jobs_per_second": jobs / seconds,
        "worker_cpu_us": 1e6 * (end.usage.cpu_seconds - start.usage.cpu_seconds) / jobs,
        "server_cpu_us": 1e6 * (end.reading.cpu_seconds - start.reading.cpu_seconds) / jobs,
        "commands": commands / jobs,
    }


def enqueue(peer: Peer, server: Server, sizes: Sizes) -> Numbers:
    """Jobs a second of one process that enqueues, while no worker runs."""
    found: Numbers = {}
    with enqueuing(peer.client(), _environment(server)) as client:
        client.do("warm_up")
        ways: dict[str, tuple[int, Mapping[str, object]]] = {
            "one_by_one": (sizes.one_by_one, {}),
            "concurrent": (sizes.concurrent, {"in_flight": sizes.in_flight}),
        }
        if peer.bulk:
            ways["bulk"] = (sizes.bulk, {"batch": sizes.batch})
        for way, (count, arguments) in ways.items():
            before = peer.remaining(server.redis)
            found[way] = count / client.do(way, count=count, **arguments)
            _check_enqueued(peer, server, before + count)
    return found


def latency(peer: Peer, server: Server, sizes: Sizes) -> Numbers:
    """A lone job on an idle worker, from just before the dispatch to the first line of its handler; and what the idle
    worker asks of the server before that."""
    with tempfile.TemporaryDirectory(prefix="rf-jobs-bench-") as folder:
        stamps = Path(folder) / "stamps"
        extra = {**_environment(server), STAMPS_VARIABLE: str(stamps)}
        with running(peer.worker(server.url), extra) as worker, enqueuing(peer.client(), extra) as client:
            _until_answering(client, worker, stamps)
            time.sleep(SETTLE_SECONDS)
            idle = _idle_commands(server, sizes.idle_seconds)
            warm = len(_read_stamps(stamps))
            client.do("lone", count=sizes.lone, pause_ms=sizes.pause_ms, seed=7)
            waits = _waits(stamps, warm + sizes.lone, worker)[warm:]
            trip = client.ask("pings", count=sizes.lone, pause_ms=sizes.pause_ms, seed=7) if peer.pings else None
    found = {"p50_ms": quantile(waits, 0.5), "p99_ms": quantile(waits, 0.99), "idle_commands_per_second": idle}
    if trip is not None:
        found["round_trip_ms"] = 1000 * float(trip["median"])
        found["round_trips"] = found["p50_ms"] / found["round_trip_ms"]
    return found


def memory(peer: Peer, server: Server, sizes: Sizes) -> Numbers:
    """Resident memory of one worker process: idle, before its first job, and after many."""
    with running(peer.worker(server.url), _environment(server)) as worker:
        idle = _settled(worker)
        _fill(peer, server, sizes.memory, sizes)
        _until_empty(peer, server, worker)
        busy = worker.usage()
    return {
        "idle_mb": idle.worker_rss_bytes / MEGABYTE,
        "after_mb": busy.worker_rss_bytes / MEGABYTE,
        "with_supervisor_mb": busy.rss_bytes / MEGABYTE,
    }


def queued_bytes(peer: Peer, server: Server, sizes: Sizes) -> Numbers:
    """What the server keeps for a waiting job with one argument of 212 bytes, scripts and connections not counted."""
    with enqueuing(peer.client(), _environment(server)) as client:
        client.do("warm_up")
    before = _memory_without_clients(server)
    with enqueuing(peer.client(), _environment(server)) as client:
        client.do("payload", count=sizes.queued, in_flight=sizes.in_flight, body=PAYLOAD)
    after = _memory_without_clients(server)
    return {"bytes_per_job": (after - before) / sizes.queued}


MEASUREMENTS: dict[str, Callable[[Peer, Server, Sizes], Numbers]] = {
    "drain": drain,
    "enqueue": enqueue,
    "latency": latency,
    "memory": memory,
    "queued": queued_bytes,
}
ONCE = frozenset({"memory", "queued"})
"""These don't depend on what else the machine does, so they are not repeated."""


# ---------------------------------------------------------------- parts


def _environment(server: Server) -> dict[str, str]:
    return {URL_VARIABLE: server.url}


def _fill(peer: Peer, server: Server, count: int, sizes: Sizes) -> None:
    """Enqueue no-op jobs the fastest way the peer has."""
    with enqueuing(peer.client(), _environment(server)) as client:
        if peer.bulk:
            client.do("bulk", count=count, batch=sizes.batch)
        else:
            client.do("concurrent", count=count, in_flight=sizes.in_flight)


def watch_drain(
    remaining: Callable[[Redis], int], probes: int, server: Server, worker: Program, count: int
) -> tuple[Moment, Moment]:
    """From when a twentieth is done until nothing is left; raises ``ProgramFailedError`` when nothing moves for a minute."""
    own = 0
    stall = Stall(STUCK_SECONDS, worker)
    start: Moment | None = None
    while True:
        left = remaining(server.redis)
        now = time.monotonic()
        own += probes
        if start is None and left <= count * (1 - WARM_SHARE):
            start = Moment(now, left, worker.usage(), server.read(), own)
            own += 1
        if left == 0 and start is not None:
            return start, Moment(now, left, worker.usage(), server.read(), own)
        stall.saw(left, POLL_SECONDS)


class Stall:
    """Notices that a worker does nothing more."""

    def __init__(self, after: float, worker: Program) -> None:
        self._after = after
        self._worker = worker
        self._last, self._moved = -1, time.monotonic()

    def saw(self, left: int, pause: float) -> None:
        """So many jobs are left; look again after ``pause``. Raises ``ProgramFailedError`` if that hasn't changed for long."""
        now = time.monotonic()
        if left != self._last:
            self._last, self._moved = left, now
        elif now - self._moved > self._after:
            raise ProgramFailedError(f"stuck with {left} jobs left: {self._worker.said()}")
        self._worker.check()
        time.sleep(pause)


def _until_empty(peer: Peer, server: Server, worker: Program) -> None:
    stall = Stall(STUCK_SECONDS, worker)
    while left := peer.remaining(server.redis):
        stall.saw(left, 0.1)


def _check_enqueued(peer: Peer, server: Server, wanted: int) -> None:
    there = peer.remaining(server.redis)
    if there != wanted:
        raise ProgramFailedError(f"{wanted} jobs were enqueued, the server has {there}")


def _memory_without_clients(server: Server) -> int:
    """Once the enqueuing program's connections, whose buffers would count, are gone."""
    deadline = time.monotonic() + READY_SECONDS
    while len(cast("list[object]", server.redis.client_list())) > 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    return server.read().memory_bytes


def _settled(worker: Program) -> Usage:
    """Once it has started: its memory no longer grows."""
    deadline = time.monotonic() + READY_SECONDS
    last = worker.usage()
    while time.monotonic() < deadline:
        time.sleep(SETTLE_SECONDS)
        now = worker.usage()
        if abs(now.rss_bytes - last.rss_bytes) < MEGABYTE // 8:
            return now
        last = now
    return last


def _until_answering(client: Client, worker: Program, stamps: Path) -> None:
    client.do("lone", count=5, pause_ms=10, seed=1)
    _waits(stamps, 5, worker)


def _idle_commands(server: Server, seconds: float) -> float:
    before, started = server.read(), time.monotonic()
    time.sleep(seconds)
    after, ended = server.read(), time.monotonic()
    return (after.commands - before.commands - 1) / (ended - started)


def _waits(stamps: Path, count: int, worker: Program) -> list[float]:
    """Milliseconds from dispatch to start, in order of dispatch, once all have started."""
    deadline = time.monotonic() + READY_SECONDS
    while len(_read_stamps(stamps)) < count:
        if time.monotonic() > deadline:
            raise ProgramFailedError(f"{len(_read_stamps(stamps))} of {count} lone jobs ran: {worker.said()}")
        worker.check()
        time.sleep(0.02)
    return [(started - sent) / 1e6 for sent, started in _read_stamps(stamps)]


def _read_stamps(path: Path) -> list[tuple[int, int]]:
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return sorted((int(sent), int(started)) for sent, _, started in (line.partition(" ") for line in lines))


def quantile(values: list[float], share: float) -> float:
    """The smallest value that at least this share of them does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
