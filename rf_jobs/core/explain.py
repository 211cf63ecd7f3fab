"""``explain``: why is this job not running? An ordered list of true reasons, the one that matters most first. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from rf_jobs.core.inspector import Inspector
from rf_jobs.core.records import JobRecord, WorkerInfo, whole
from rf_jobs.model.envelope import Envelope
from rf_jobs.store import batch_calls, limit_calls
from rf_jobs.store.redis import AsyncStore
from rf_jobs.words.errors import JobNotFound, SerializationError
from rf_jobs.words.states import State
from rf_jobs.words.timing import from_ms

MANY = 10
"""Jobs that a reason names."""
WINDOW_MS = 60_000
"""The rate at which a queue is worked off is that of the last minute."""


@dataclass(frozen=True)
class Reason:
    """One reason."""

    code: str
    """over, running, lease_lost, scheduled, dependency, limit, paused, parked, no_worker, unknown_class, busy, position, next."""
    message: str
    until: datetime | None = None
    """When it ends by itself, where that is known."""
    blockers: tuple[str, ...] = ()
    """Ids of the jobs (or batches) that it is about; the first few."""


@dataclass(frozen=True)
class Explanation:
    """Why a job is where it is."""

    id: UUID
    job_class: str
    queue: str
    state: str
    reasons: list[Reason] = field(default_factory=list)


@dataclass(frozen=True)
class _Case:
    """What the reasons are found in."""

    record: JobRecord
    letter: Envelope | None
    meta: dict[str, str]
    now_ms: int
    workers: list[WorkerInfo]

    @property
    def id(self) -> str:
        return str(self.record.id)


class Explainer:
    """Answers for one store."""

    def __init__(self, store: AsyncStore, inspector: Inspector) -> None:
        self._store = store
        self._commands = store.commands
        self._inspector = inspector

    async def explain(self, job_id: UUID) -> Explanation:
        """Raises ``JobNotFound``."""
        record = await self._inspector.job(job_id)
        try:
            letter = await self._inspector.envelope(str(job_id))
        except SerializationError:
            letter = None
        meta, now = await self._store.run_many([self._commands.meta(str(job_id)), self._commands.time()])
        case = _Case(record, letter, meta, now, await self._inspector.workers())
        reasons: list[Reason] = []
        for look in self._looks(record.state):
            reasons += await look(case)
        return Explanation(record.id, record.job_class, record.queue, record.state, reasons)

    def _looks(self, state: str) -> Sequence[Callable[[_Case], Coroutine[Any, Any, list[Reason]]]]:
        if State(state).is_final:
            return [self._over]
        if state == State.RUNNING:
            return [self._running]
        first = {State.SCHEDULED: self._scheduled, State.BLOCKED: self._blocked, State.PARKED: self._parked}
        waiting = [self._paused, self._served]
        own = first.get(State(state))
        return [self._paused, self._served, self._position] if own is None else [own, *waiting]

    # --- by state ------------------------------------------------------------------------------------------------

    async def _over(self, case: _Case) -> list[Reason]:
        record = case.record
        at = f"{record.finished_at:%Y-%m-%d %H:%M:%S} UTC" if record.finished_at is not None else "some time"
        why = f": {record.reason}" if record.reason else ""
        hint = "; replay it with retry_failed" if record.state == State.DEAD else ""
        return [Reason("over", f"it is {record.state} since {at}{why}{hint}")]

    async def _running(self, case: _Case) -> list[Reason]:
        score = await self._store.run(self._commands.score(State.RUNNING, case.record.queue, case.id))
        worker = next((w for w in case.workers if w.id == case.record.worker), None)
        left = ((score or 0) - case.now_ms) / 1000
        where = f"worker {case.record.worker}" + (f" ({worker.host}, pid {worker.pid})" if worker is not None else "")
        ran = (case.now_ms - whole(case.meta.get("epoch", "0"))) / 1000
        asked = "; it was asked to stop" if case.record.cancel_requested else ""
        reasons = [Reason("running", f"it runs: attempt {case.record.attempt} for {ran:.1f} s on {where}{asked}")]
        if left <= 0:
            reasons.insert(
                0,
                Reason(
                    "lease_lost",
                    f"its lease ran out {-left:.1f} s ago: {where} is gone or hangs; the next"
                    " upkeep of a worker on this queue takes it back",
                ),
            )
        elif worker is None or worker.state == "stale":
            reasons.insert(
                0,
                Reason(
                    "lease_lost",
                    f"{where} is silent; if it stays so, the job is taken back in {left:.1f} s",
                    from_ms(score or 0),
                ),
            )
        return reasons

    async def _scheduled(self, case: _Case) -> list[Reason]:
        due = case.record.due_at
        in_seconds = (due.timestamp() - case.now_ms / 1000) if due is not None else 0.0
        last = case.record.last_error
        why = "it was dispatched to run later"
        if case.record.attempt and last is not None:
            why = f"attempt {case.record.attempt} failed ({last.type}: {last.message[:100]}) and is tried again"
        elif case.record.attempt:
            why = f"attempt {case.record.attempt} asked to run again later"
        return [
            Reason(
                "scheduled",
                f"it is scheduled for {due:%Y-%m-%d %H:%M:%S} UTC, in {max(0.0, in_seconds):.1f} s: {why}",
                due,
            )
        ]

    async def _blocked(self, case: _Case) -> list[Reason]:
        held = case.meta.get("held", "")
        if held.startswith("!"):
            return []  # a pause, which says so itself
        return await self._limited(case, held) if held else await self._waits_for(case)

    async def _waits_for(self, case: _Case) -> list[Reason]:
        count, ids = await self._store.run_many(
            [batch_calls.parent_count(self._commands, case.id), batch_calls.parents(self._commands, case.id, MANY)]
        )
        shown = [await self._standing(each) for each in ids]
        more = f" and {count - len(ids)} more" if count > len(ids) else ""
        return [Reason("dependency", f"it waits for {count} to complete: {', '.join(shown)}{more}", None, tuple(ids))]

    async def _standing(self, node: str) -> str:
        try:
            record = await self._inspector.job(node)
        except JobNotFound:
            fields = await self._store.run(batch_calls.fields(self._commands, node))
            return f"{fields.get('kind', 'batch')} {node} ({fields.get('state', 'gone')})"
        return f"{record.job_class} {node} ({record.state})"

    async def _limited(self, case: _Case, ref: str) -> list[Reason]:
        name = ref.partition("/")[0]
        fields, holders, due, held = await self._store.run_many(
            [
                limit_calls.definition(self._commands, name),
                limit_calls.holders(self._commands, ref, MANY),
                limit_calls.due(self._commands, ref),
                limit_calls.held(self._commands, ref),
            ]
        )
        key = f" for key {ref.partition('/')[2]}" if "/" in ref else ""
        concurrency, rate, per = (fields.get(f.upper(), fields.get(f)) for f in ("c", "r", "p"))
        queue = f"; {held} wait for it"
        reasons = []
        if concurrency and holders:
            who = ", ".join([await self._holder(each, case.workers) for each in holders])
            text = f"limit {name}{key} lets {concurrency} run at once; running: {who}{queue}"
            reasons.append(Reason("limit", text, None, tuple(holders)))
        if rate:
            in_seconds = max(0.0, ((due or case.now_ms) - case.now_ms) / 1000)
            text = (
                f"limit {name}{key} lets {rate} start in {whole(per) / 1000:g} s; it frees in {in_seconds:.1f} s{queue}"
            )
            reasons.append(Reason("limit", text, from_ms(due) if due is not None else None))
        return reasons or [Reason("limit", f"limit {name}{key} holds it; the next fetch lets it go")]

    async def _holder(self, job_id: str, workers: list[WorkerInfo]) -> str:
        try:
            record = await self._inspector.job(job_id)
        except JobNotFound:
            return f"{job_id} (gone)"
        alive = any(w.id == record.worker and w.state != "stale" for w in workers)
        return f"{record.job_class} {job_id} ({'its worker is alive' if alive else 'its worker is silent'})"

    async def _parked(self, case: _Case) -> list[Reason]:
        return [Reason("parked", f"it is parked: {case.record.reason or 'no worker could run it'}")]

    # --- for all that wait ---------------------------------------------------------------------------------------

    async def _paused(self, case: _Case) -> list[Reason]:
        reasons = []
        if await self._store.run(self._commands.is_paused(case.record.queue)):
            reasons.append(Reason("paused", f"queue {case.record.queue} is paused"))
        holds = await self._store.run(limit_calls.holds(self._commands))
        scopes = [f"class:{case.record.job_class}", *(f"key:{tag}" for tag in case.record.tags)]
        for scope in scopes:
            until = whole(holds.get(scope, "-1"))
            if until == 0 or until > case.now_ms:
                kind, _, name = scope.partition(":")
                what = "class" if kind == "class" else "tag"
                ends = f" for {(until - case.now_ms) / 1000:.1f} s more" if until else " until it is resumed"
                reasons.append(Reason("paused", f"{what} {name} is paused{ends}", from_ms(until) if until else None))
        return reasons

    async def _served(self, case: _Case) -> list[Reason]:
        queue = case.record.queue
        live = [w for w in case.workers if w.state == "running" and queue in w.queues]
        if not live:
            return [
                Reason("no_worker", f"no live worker serves queue {queue}; start one: rf-jobs worker --queues {queue}")
            ]
        version = case.letter.ver if case.letter is not None else 1
        able = [w for w in live if w.catalog is None or w.catalog.can_run(case.record.job_class, version) is not False]
        if not able:
            text = f"none of the {len(live)} workers on queue {queue} knows {case.record.job_class} version {version}"
            return [Reason("unknown_class", f"{text}; import its module in a worker")]
        if all(w.busy >= w.slots for w in able):
            return [
                Reason(
                    "busy",
                    f"all {sum(w.slots for w in able)} slots of the {len(able)} workers that can run it are taken",
                )
            ]
        return []

    async def _position(self, case: _Case) -> list[Reason]:
        queue = case.record.queue
        rank, recent = await self._store.run_many(
            [
                self._commands.position(State.READY, queue, case.id),
                self._commands.completed_since(queue, case.now_ms - WINDOW_MS),
            ]
        )
        if rank is None:
            return []  # it has just left
        count, oldest = recent
        seconds = min(WINDOW_MS, case.now_ms - oldest) / 1000 if count else 0.0
        if not rank:
            return [Reason("next", f"it is the next one of queue {queue}")]
        wait = f"; about {rank * seconds / count:.0f} s at the last minute's rate" if count and seconds else ""
        return [Reason("position", f"{rank} jobs stand before it in queue {queue}{wait}")]
