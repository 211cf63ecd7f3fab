"""What the doctor looks at: the server, the workers, the queues. Reads only; prints nothing.

``check_up`` is quick, at a cost that does not grow with the jobs. ``deep_check`` walks over the jobs themselves; it
stands in ``doctor_walk`` and is at hand here too.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from rf_jobs.core.doctor_walk import DeepReport, deep_check
from rf_jobs.core.inspector import Inspector, queue_info
from rf_jobs.core.records import QueueInfo, WorkerInfo
from rf_jobs.store.redis import AsyncStore
from rf_jobs.store.schedule_calls import ScheduleCalls, ScheduleSurvey
from rf_jobs.store.shapes import Survey
from rf_jobs.words.states import State
from rf_jobs.words.timing import mono, now_ms

__all__ = ["Check", "DeepReport", "check_up", "deep_check", "worst"]

Status = Literal["ok", "warn", "fail"]
GRAVITY: dict[Status, int] = {"ok": 0, "warn": 1, "fail": 2}

PINGS = 15
SLOW_MS, VERY_SLOW_MS = 5.0, 100.0
SKEW_MS = 2_000
LATE_MS = 60_000
"""How long work may be overdue before somebody is missed."""
HEADROOM = 0.8
OLDEST_REDIS, OLDEST_VALKEY = (6, 2), (7, 2)


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, how it is, what that means, and what to do about it ('' when all is well)."""

    name: str
    status: Status
    what: str
    todo: str = ""


@dataclass(frozen=True)
class Findings:
    """What was read; the checks judge it without asking again."""

    info: Mapping[str, Any]
    """What the server says of itself."""
    others: list[Mapping[str, Any]]
    """What the other servers say, where shards are on several."""
    pings_ms: list[float]
    skew_ms: float
    survey: Survey
    queues: list[QueueInfo]
    workers: list[WorkerInfo]
    overdue: Mapping[str, int]
    """Running jobs by queue whose lease ran out long ago."""
    age_objective: float
    schedules: ScheduleSurvey
    """With the one that is due first."""
    unsettled: int
    """Consequences that are still to be drawn from what has happened to jobs."""
    skipped: list[str]
    """Those that could not be, at most the last thousand."""


def worst(checks: list[Check]) -> Status:
    """The gravest status among them."""
    gravest = max(checks, key=lambda check: GRAVITY[check.status], default=None)
    return "ok" if gravest is None else gravest.status


async def check_up(store: AsyncStore, *, queue_age_objective: float = 300.0) -> list[Check]:
    """Look over server, workers and queues. Give a store that allows evicting servers, so that one can be diagnosed.
    Raises ``BackendError``."""
    findings = await _examine(store, queue_age_objective)
    servers = [findings, *(replace(findings, info=info) for info in findings.others)]
    of_servers = [
        max((judge(each) for each in servers), key=lambda check: GRAVITY[check.status])
        for judge in (_version, _eviction, _persistence, _memory)
    ]
    judges = (
        _latency, _clock, _workers, _stale, _leases, _served, _age, _paused,
        _dead, _parked, _schedules, _consequences, _ledger,
    )  # fmt: skip
    return [*of_servers, *(judge(findings) for judge in judges)]


async def _examine(store: AsyncStore, age_objective: float) -> Findings:
    commands, inspector = store.commands, Inspector(store)
    await store.connect()
    pings, skews = [], []
    for _ in range(PINGS):
        began, before = mono(), now_ms()
        server = await store.run(commands.time())
        took = (mono() - began) * 1000
        pings.append(took)
        skews.append((took, server - before - took / 2))
    survey = await inspector.survey()
    late = survey.now_ms - LATE_MS
    overdue = {}
    for queue in survey.queues:
        if queue.cards[State.RUNNING]:
            late_ids = await store.run(commands.due_before(State.RUNNING, queue.name, late, 1000))
            overdue[queue.name] = len(late_ids)
    return Findings(
        info=await store.run(commands.info()),
        others=[await store.run(commands.info(shard)) for shard in store.elsewhere()],
        pings_ms=pings,
        skew_ms=min(skews)[1],  # of the shortest round trip, which tells best
        survey=survey,
        queues=[queue_info(queue, survey.now_ms) for queue in survey.queues],
        workers=await inspector.workers(),
        overdue={name: count for name, count in overdue.items() if count},
        age_objective=age_objective,
        schedules=await store.run(ScheduleCalls(commands).survey(1)),
        unsettled=await store.run(commands.unsettled()),
        skipped=await store.run(commands.skipped()),
    )


# --- the server --------------------------------------------------------------------------------------------------


def _version(f: Findings) -> Check:
    valkey = f.info.get("valkey_version")
    name, text = ("Valkey", str(valkey)) if valkey else ("Redis", str(f.info.get("redis_version", "0")))
    oldest = OLDEST_VALKEY if valkey else OLDEST_REDIS
    numbers = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if numbers < oldest:
        wanted = ".".join(map(str, oldest))
        return Check("version", "fail", f"{name} {text} is too old", f"upgrade to {name} {wanted} or later")
    return Check("version", "ok", f"{name} {text}")


def _eviction(f: Findings) -> Check:
    policy = str(f.info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        return Check(
            "eviction", "fail", f"maxmemory-policy is {policy}: the server may drop jobs in silence",
            "CONFIG SET maxmemory-policy noeviction, and write it to the server's configuration",
        )  # fmt: skip
    return Check("eviction", "ok", "maxmemory-policy is noeviction")


def _persistence(f: Findings) -> Check:
    todo = "CONFIG SET appendonly yes, and write it to the server's configuration"
    if int(f.info.get("aof_enabled", 0)):
        status = str(f.info.get("aof_last_write_status", "ok"))
        if status != "ok":
            return Check(
                "persistence",
                "fail",
                f"the last write to the append-only file failed: {status}",
                "look at the server's log and disk",
            )
        return Check("persistence", "ok", "the append-only file is on; a power cut costs at most about a second")
    unsaved = int(f.info.get("rdb_changes_since_last_save", 0))
    if str(f.info.get("rdb_last_bgsave_status", "ok")) != "ok":
        return Check("persistence", "fail", "the append-only file is off and the last snapshot failed", todo)
    return Check(
        "persistence",
        "warn",
        f"the append-only file is off: a restart loses all since the last snapshot, if there is one ({unsaved} changes)",
        todo,
    )


def _memory(f: Findings) -> Check:
    used, limit = int(f.info.get("used_memory", 0)), int(f.info.get("maxmemory", 0))
    used_mb = used / 2**20
    if not limit:
        return Check("memory", "ok", f"{used_mb:.1f} MiB used; maxmemory is not set, so the host's memory is the limit")
    share = used / limit
    what = f"{used_mb:.1f} of {limit / 2**20:.1f} MiB used ({share:.0%})"
    if share < HEADROOM:
        return Check("memory", "ok", what)
    todo = "raise maxmemory, let the workers drain, or lower the retention ([jobs] completed_keep, dead_keep)"
    return Check("memory", "fail" if share >= 0.95 else "warn", f"{what}; when it is full, dispatch is refused", todo)


def _latency(f: Findings) -> Check:
    middle, top = statistics.median(f.pings_ms), max(f.pings_ms)
    what = f"a round trip takes {middle:.2f} ms (median of {len(f.pings_ms)}, slowest {top:.2f} ms)"
    if middle < SLOW_MS:
        return Check("latency", "ok", what)
    todo = "run workers near the server; look for slow commands (SLOWLOG GET), swapping and fork times on the server"
    return Check("latency", "fail" if middle >= VERY_SLOW_MS else "warn", what, todo)


def _clock(f: Findings) -> Check:
    what = f"the server's clock and this host's differ by {abs(f.skew_ms) / 1000:.3f} s"
    if abs(f.skew_ms) < SKEW_MS:
        return Check("clock", "ok", what)
    return Check(
        "clock",
        "warn",
        f"{what}; leases and delays go by the server's, but times given by `at` and expiry by this one",
        "run NTP (chrony, systemd-timesyncd) on both hosts",
    )


# --- workers -----------------------------------------------------------------------------------------------------


def _alive(f: Findings) -> list[WorkerInfo]:
    return [worker for worker in f.workers if worker.state != "stale"]


def _workers(f: Findings) -> Check:
    alive = _alive(f)
    if not alive:
        return Check("workers", "warn", "no worker is alive", "start one: rf-jobs worker MODULE")
    busy, slots = sum(worker.busy for worker in alive), sum(worker.slots for worker in alive)
    return Check("workers", "ok", f"{len(alive)} alive, {busy} of {slots} slots busy")


def _stale(f: Findings) -> Check:
    stale = [worker for worker in f.workers if worker.state == "stale"]
    if not stale:
        return Check("stale workers", "ok", "none")
    names = ", ".join(f"{worker.host}:{worker.pid}" for worker in stale[:5])
    return Check(
        "stale workers",
        "warn",
        f"{len(stale)} fell silent without signing off: {names}",
        "see whether they were killed (memory?) or lost the server; their jobs are taken back",
    )


def _leases(f: Findings) -> Check:
    if not f.overdue:
        return Check("leases", "ok", "no running job's lease is overdue")
    what = ", ".join(f"{count} on {name}" for name, count in sorted(f.overdue.items()))
    return Check(
        "leases",
        "fail",
        f"leases ran out over a minute ago and nobody took the jobs back: {what}",
        "start a worker on these queues; any worker on a queue takes its lost jobs back",
    )


def _served(f: Findings) -> Check:
    served = {queue for worker in _alive(f) for queue in worker.queues}
    late = f.survey.now_ms - LATE_MS
    waiting = {
        q.name: q.cards[State.READY] for q in f.survey.queues if q.cards[State.READY] or (q.next_due_ms or late) < late
    }
    alone = sorted(set(waiting) - served)
    if alone:
        named = ", ".join(f"{name} ({waiting[name]} ready)" for name in alone)
        return Check(
            "queues served",
            "fail",
            f"jobs wait and no live worker serves: {named}",
            f"rf-jobs worker MODULE --queues {','.join(alone)}",
        )
    return Check(
        "queues served",
        "ok",
        f"every queue with waiting jobs has a worker ({len(waiting)} of {len(f.queues)} have some)",
    )


# --- queues ------------------------------------------------------------------------------------------------------


def _age(f: Findings) -> Check:
    old = [queue for queue in f.queues if queue.oldest_ready_seconds > f.age_objective]
    if not old:
        return Check("queue age", "ok", f"no ready job has waited longer than {f.age_objective:g} s")
    named = ", ".join(f"{queue.name} ({queue.oldest_ready_seconds:.0f} s)" for queue in old)
    return Check(
        "queue age",
        "warn",
        f"the oldest ready job has waited longer than {f.age_objective:g} s on: {named}",
        "add workers, or raise max_concurrent_jobs for jobs that wait for I/O",
    )


def _paused(f: Findings) -> Check:
    paused = [queue.name for queue in f.queues if queue.paused]
    if not paused:
        return Check("paused queues", "ok", "none")
    return Check("paused queues", "warn", ", ".join(paused), f"rf-jobs resume {' '.join(paused)}, once they should run")


def _held(f: Findings, name: str, state: State, todo: str) -> Check:
    found = {queue.name: queue.counts[state] for queue in f.queues if queue.counts[state]}
    if not found:
        return Check(name, "ok", "none")
    named = ", ".join(f"{count} on {queue}" for queue, count in found.items())
    return Check(name, "warn", f"{sum(found.values())}: {named}", todo)


def _dead(f: Findings) -> Check:
    return _held(f, "dead letters", State.DEAD, "rf-jobs failed list; then rf-jobs failed retry or forget")


def _parked(f: Findings) -> Check:
    return _held(
        f,
        "parked jobs",
        State.PARKED,
        "no worker knows their class: deploy one that imports it, or see rf-jobs jobs list --state parked",
    )


def _schedules(f: Findings) -> Check:
    survey = f.schedules
    if not survey.schedules:
        return Check("schedules", "ok", "there are none")
    todo = "start a scheduler: rf-jobs scheduler MODULE, or rf-jobs worker MODULE --scheduler"
    if not survey.schedulers:
        return Check("schedules", "fail", f"{survey.schedules} schedules and no scheduler: nothing of it runs", todo)
    what = f"{survey.schedules} schedules, {survey.schedulers} schedulers"
    late = max((survey.now_ms - row.due for row in survey.rows if row.due is not None), default=0)
    if late > LATE_MS:
        todo = "rf-jobs schedules list shows which and why; look at the schedulers' logs"
        return Check("schedules", "warn", f"{what}; the next run is {late / 1000:.0f} s late", todo)
    return Check("schedules", "ok", what)


def _consequences(f: Findings) -> Check:
    """What the end of a job means for its batch, its dependents and its limits."""
    name = "consequences"
    if f.skipped:
        what = f"{len(f.skipped)} could not be drawn; the last one: {f.skipped[-1]}"
        todo = "rf-jobs explain the ids it names, and cancel or replay what waits for ever; then delete the key outbox:skipped"
        return Check(name, "fail", what, todo)
    if f.unsettled and not _alive(f):
        what = f"{f.unsettled} wait to be drawn, and no worker is alive to do it"
        return Check(name, "warn", what, "start one: rf-jobs worker MODULE")
    return Check(name, "ok", f"{f.unsettled} wait to be drawn" if f.unsettled else "all are drawn")


def _ledger(f: Findings) -> Check:
    wrong = {queue.name: queue.imbalance for queue in f.queues if queue.imbalance}
    if not wrong:
        return Check("ledger", "ok", "every job that was dispatched is accounted for")
    named = ", ".join(f"{name} by {count}" for name, count in wrong.items())
    return Check(
        "ledger",
        "fail",
        f"the ledger and the jobs disagree: {named}",
        "rf-jobs doctor --deep names the jobs; were keys edited or evicted?",
    )
