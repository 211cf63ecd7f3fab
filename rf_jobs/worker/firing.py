"""What a scheduler does about schedules that are due: the jobs of their ticks are made, dispatched, and the schedules moved on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from rf_jobs.client.manager import QueueManager
from rf_jobs.client.schedules import in_its_shard
from rf_jobs.core import schedules as changes
from rf_jobs.core.schedules import Firing
from rf_jobs.model.job import Job
from rf_jobs.model.schedule import Definition, decode
from rf_jobs.store.failures import Failure, kind
from rf_jobs.store.schedule_calls import Agenda, Due, Tick
from rf_jobs.words.errors import BackendError, RfJobsError, SchedulerError
from rf_jobs.words.recurrence import Misfire, Timetable, step, tick_id
from rf_jobs.words.timing import mono
from rf_jobs.worker.patience import PATIENCE_SECONDS

log = logging.getLogger("rf_jobs.scheduler")
KEPT_PLANS = 50_000
_MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class _Plan:
    """A definition, read."""

    revision: str
    definition: Definition
    table: Timetable
    job: Job | None


class Firer:
    """``work`` does what an agenda asks for. Where the server does not answer, ``make_sure`` sends the same again before anything
    else: it may have been done, and was not told. Lost with its process is what it knows, not what is due."""

    def __init__(self, manager: QueueManager, scheduler: str) -> None:
        self._lifecycle = manager.lifecycle
        self._scheduler = scheduler
        self._calls = manager.schedules.calls
        self._maker = manager.schedules.maker
        self._placer = manager.placer
        self._plans: dict[str, _Plan] = {}
        self._unsure: list[Firing] = []

    async def work(self, agenda: Agenda, asked: float) -> None:
        """``asked``: when the agenda came (monotonic). Raises ``BackendError``."""
        if not agenda.schedules:
            return
        await self._learn(agenda.schedules)
        now = agenda.now_ms + round((mono() - asked) * 1000)
        firings: list[Firing] = []
        size = 0
        for due in agenda.schedules:
            plan = self._plans.get(due.name)
            if plan is None or plan.revision != due.revision:
                continue  # changed, removed or in trouble since: it comes again
            firing = await self._firing(due, plan, now)
            if firing is None:
                continue
            firings.append(firing)
            size += len(firing.job.draft.data) if firing.job is not None else 0
            if size > _MAX_BYTES:
                await self._fire(firings)
                firings, size = [], 0
        if firings:
            await self._fire(firings)

    async def make_sure(self) -> None:
        """Find out what became of what was sent and not answered. Raises ``BackendError``."""
        if self._unsure:
            await self._fire(self._unsure)

    async def _fire(self, firings: list[Firing]) -> None:
        self._unsure = firings
        try:
            transition = changes.fire(self._calls, self._scheduler, firings)
            await self._lifecycle.apply(transition, retry_for=PATIENCE_SECONDS)
        except BackendError as error:
            if kind(error.__cause__ or error) is not Failure.WRONG:
                raise
            await self._apart(firings, error)
        self._unsure = []

    async def _apart(self, firings: list[Firing], error: BackendError) -> None:
        """One of them is more than the server can bear: the others must not wait for it."""
        if len(firings) > 1:
            for firing in firings:
                await self._fire([firing])
            return
        tick = firings[0].tick
        await self._trouble(Due(tick.name, tick.expected or 0, tick.revision, tick.shard), str(error))

    async def _learn(self, schedules: Sequence[Due]) -> None:
        """Read the definitions that are not known yet."""
        known = self._plans
        new = [due for due in schedules if due.name not in known or known[due.name].revision != due.revision]
        if not new:
            return
        if len(known) + len(new) > KEPT_PLANS:
            known.clear()
        calls = [self._calls.definition(due.name) for due in new]
        found = await self._lifecycle.store.run_many(calls, retry_for=PATIENCE_SECONDS)
        for due, (revision, data) in zip(new, found, strict=True):
            if not revision:
                continue
            try:
                definition = decode(data)
                job = self._maker.job(due.name, definition)
                known[due.name] = _Plan(revision, definition, definition.timetable(due.name), job)
            except RfJobsError as error:
                known.pop(due.name, None)
                await self._trouble(due, str(error))

    async def _firing(self, due: Due, plan: _Plan, now: int) -> Firing | None:
        """What is to be done about its tick; None where this scheduler can't."""
        definition, table = plan.definition, plan.table
        todo = step(table, due.tick, now, Misfire(definition.misfire), definition.grace)
        job, missed, error = None, todo.missed, ""
        if todo.run is not None:
            try:
                job = self._maker.make(due.name, definition, plan.job, tick_id(due.name, todo.run), todo.run)
                await self._placer.claim([job.draft])
                in_its_shard(self._lifecycle.store.commands.shards, due.name, due.shard, job.draft.queue)
            except SchedulerError as impossible:  # here; perhaps not elsewhere
                await self._trouble(due, str(impossible))
                return None
            except BackendError:
                raise
            except Exception as impossible:  # the class's own methods, and middlewares, may raise anything
                error = f"{type(impossible).__name__}: {impossible}"[:500]
                job = None
                missed += 1
                log.error("schedule %s: a tick cannot be dispatched: %s", due.name, error)  # noqa: TRY400
        tick = Tick(
            due.name, due.tick, due.revision, None if job is None else todo.run, todo.next,
            None if todo.next is None else table.due(todo.next), missed, error,
            None if job is None else job.draft, "" if job is None else job.event.job_class, due.shard,
        )  # fmt: skip
        return Firing(tick, job)

    async def _trouble(self, due: Due, error: str) -> None:
        log.error("schedule %s cannot be run by this scheduler: %s", due.name, error)
        transition = changes.trouble(self._calls, due, error[:500])
        await self._lifecycle.apply(transition, retry_for=PATIENCE_SECONDS)
