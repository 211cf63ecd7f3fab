"""What an operator does with queues, waiting jobs and dead letters: a part of ``QueueManager``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from rf_jobs.client.deadletters import DeadLetters
from rf_jobs.client.offload import Offload
from rf_jobs.core import transitions
from rf_jobs.core.explain import Explainer, Explanation
from rf_jobs.core.inspector import Filters, Inspector
from rf_jobs.core.lifecycle import Lifecycle
from rf_jobs.core.records import JobRecord, QueueInfo, WorkerInfo, whole
from rf_jobs.core.searching import Searcher, SearchResult, Wanted
from rf_jobs.model.jobclass import registry
from rf_jobs.store import limit_calls
from rf_jobs.store.redis import AsyncStore
from rf_jobs.store.shapes import Retention
from rf_jobs.words import options as checks
from rf_jobs.words.errors import InvalidOption, UnknownQueue
from rf_jobs.words.ids import job_id as as_job_id
from rf_jobs.words.ids import queue_name
from rf_jobs.words.limits import positive_ms
from rf_jobs.words.states import Priority, State
from rf_jobs.words.timing import Duration, from_ms, millis, moment_ms, seconds

CLEARED = (State.READY, State.SCHEDULED, State.BLOCKED, State.PARKED)


class Steering:
    """Needs what ``QueueManager`` has; keeps nothing of its own."""

    store: AsyncStore
    lifecycle: Lifecycle
    inspector: Inspector
    retention: Retention
    offload: Offload
    _dead: DeadLetters

    # --- queues ------------------------------------------------------------------------------------------------

    async def size(self, queue: str) -> int:
        """How many jobs are ready."""
        return await self.store.run(self.store.commands.count(State.READY, queue_name(queue)))

    async def counts(self, queue: str) -> dict[str, int]:
        """How many jobs are in each state; finished ones as far as they are kept."""
        name = queue_name(queue)
        values = await self.store.run_many([self.store.commands.count(state, name) for state in State])
        return {state.value: value for state, value in zip(State, values, strict=True)}

    async def clear(self, queue: str) -> int:
        """Remove all jobs that wait in a queue (ready, scheduled, blocked, parked), at most as many as there are now;
        they count as cancelled. Answers how many."""
        name, removed = queue_name(queue), 0
        for state in CLEARED:
            left = await self.store.run(self.store.commands.count(state, name))
            while left > 0:
                gone = await self.lifecycle.apply(transitions.clear(self.store.commands, name, state, min(left, 500)))
                removed += len(gone)
                left = left - len(gone) if gone else 0
        return removed

    async def pause(self, queue: str) -> bool:
        """Stop all workers from fetching from it; running jobs go on. Answers whether that is new."""
        return await self.lifecycle.apply(transitions.pause(self.store.commands, queue_name(queue)))

    async def resume(self, queue: str) -> bool:
        """Let workers fetch from it again. Answers whether that is new."""
        return await self.lifecycle.apply(transitions.resume(self.store.commands, queue_name(queue)))

    async def queues(self) -> list[QueueInfo]:
        """All queues that ever held a job."""
        return await self.inspector.queues()

    async def queue(self, name: str) -> QueueInfo:
        """One queue. Raises ``UnknownQueue``."""
        found = {info.name: info for info in await self.queues()}
        if name not in found:
            raise UnknownQueue(f"no queue {name!r} has ever held a job; known are {', '.join(sorted(found)) or 'none'}")
        return found[name]

    async def workers(self) -> list[WorkerInfo]:
        """Live worker processes, and those that fell silent a moment ago."""
        return await self.inspector.workers()

    # --- classes and tags --------------------------------------------------------------------------------------

    async def pause_class(self, job_class: type | str, for_: Duration | None = None) -> bool:
        """Let no job of a class start, in any queue, for so long or until it is resumed; running ones go on. What is met
        waits in state ``blocked``. Answers whether that is new."""
        return any([await self._hold(scope, for_) for scope in _class_scopes(job_class)])

    async def resume_class(self, job_class: type | str) -> bool:
        """Let them start again, in the order in which they were ready."""
        ended = [
            await self.lifecycle.apply(transitions.end_hold(self.store.commands, scope))
            for scope in _class_scopes(job_class)
        ]
        return any(ended)

    async def pause_key(self, tag: str, for_: Duration | None = None) -> bool:
        """Let no job with this tag start, such as ``tenant:7``; as ``pause_class``."""
        return await self._hold(f"key:{checks.tags([tag])[0]}", for_)

    async def resume_key(self, tag: str) -> bool:
        """Let them start again."""
        return await self.lifecycle.apply(transitions.end_hold(self.store.commands, f"key:{checks.tags([tag])[0]}"))

    async def _hold(self, scope: str, for_: Duration | None) -> bool:
        ms = 0 if for_ is None else positive_ms(for_, "for_")
        return await self.lifecycle.apply(transitions.hold(self.store.commands, scope, ms))

    async def paused(self) -> dict[str, datetime | None]:
        """What is paused beside queues: ``class:<name>`` or ``key:<tag>``, and until when (None: until it is resumed)."""
        commands = self.store.commands
        holds, now = await self.store.run_many([limit_calls.holds(commands), commands.time()])
        times = {scope: whole(until) for scope, until in sorted(holds.items())}
        return {scope: from_ms(at) if at else None for scope, at in times.items() if not at or at > now}

    async def explain(self, job_id: UUID | str) -> Explanation:
        """Why a job is not running (yet, or any more): true reasons, the most important first. Raises ``JobNotFound``."""
        return await Explainer(self.store, self.inspector).explain(as_job_id(job_id))

    async def search(
        self, *, queue: str | None = None, states: Iterable[State | str] = (), job_class: type | str | None = None,
        tag: str | None = None, text: str | None = None, limit: int = 50, scan: int = 10_000,
    ) -> SearchResult:  # fmt: skip
        """The first ``limit`` jobs that fit all that is given: ``text`` is part of the id, the payload (what is sealed is not
        read) or the last error. Looks at no more than about ``scan`` jobs, and says whether those were all."""
        checks.at_least(limit, 1, "limit")
        checks.at_least(scan, 1, "scan")
        for what, value in (("tag", tag), ("text", text)):
            if value is not None:
                checks.text(value, what)
        wanted = Wanted(
            queue_name(queue) if queue else None, _states(states) or tuple(State),
            None if job_class is None else _class_name(job_class), tag, text,
        )  # fmt: skip
        return await Searcher(self.store, self.inspector).search(wanted, limit, scan)

    # --- waiting jobs ------------------------------------------------------------------------------------------

    async def cancel(self, job_id: UUID | str, reason: str = "") -> bool:
        """Cancel a job that waits, or ask the worker that runs it to stop it (it then ends as cancelled, unless it
        ends by itself first). Answers False where it was over already. Raises ``JobNotFound``."""
        reason = checks.text(reason, "reason")
        record = await self.inspector.job(as_job_id(job_id))
        transition = transitions.cancel(
            self.store.commands, str(record.id), record.queue, record.job_class, reason or "cancelled", self.retention
        )
        return (await self.lifecycle.apply(transition))[1]

    async def reprioritize(self, job_id: UUID | str, priority: Priority | str | int) -> bool:
        """Give a waiting job another priority; it keeps its age. Answers False where it does not wait. Raises ``JobNotFound``."""
        return await self._move(as_job_id(job_id), "priority", str(int(checks.priority(priority))))

    async def reschedule(
        self, job_id: UUID | str, *, delay: Duration | None = None, at: datetime | None = None
    ) -> bool:
        """Let a waiting job run at another time: in ``delay`` seconds, ``at`` a time, or, with neither, at once. A job that waits
        for others still does. Answers False where it does not wait, or is parked. Raises ``JobNotFound``."""
        if delay is not None and at is not None:
            raise InvalidOption(f"delay is {delay!r} and at is {at!r}; give one of them")
        value = f"+{millis(delay, 'delay')}" if delay is not None else "" if at is None else str(moment_ms(at, "at"))
        return await self._move(as_job_id(job_id), "due", value)

    async def _move(self, job_id: UUID, what: str, value: str) -> bool:
        record = await self.inspector.job(job_id)
        transition = transitions.move(self.store.commands, str(job_id), record.queue, record.job_class, what, value)
        return (await self.lifecycle.apply(transition))[1]

    # --- dead letters ------------------------------------------------------------------------------------------

    async def failed_jobs(
        self, queue: str | None = None, offset: int = 0, limit: int = 50, filters: Filters | None = None
    ) -> list[JobRecord]:
        """A page of dead letters, newest first within a queue. ``queue`` and ``filters.queue`` mean the same."""
        checks.page(offset, limit)
        wanted = _filters(filters)
        if queue and wanted.queue not in (None, queue):
            raise InvalidOption(f"queue is {queue!r} and filters.queue is {wanted.queue!r}; give one of them")
        name = queue or wanted.queue
        return await self._dead.page(offset, limit, replace(wanted, queue=queue_name(name) if name else None))

    async def retry_failed(self, job_id: UUID | str) -> bool:
        """Replay one dead letter, with all its attempts. Answers False where it is none. Raises ``JobNotFound``."""
        return await self._dead.revive_one(as_job_id(job_id))

    async def retry_all_failed(self, filters: Filters | None = None) -> int:
        """Replay all dead letters that fit; answers how many."""
        return await self._dead.revive_all(_filters(filters))

    async def forget_failed(self, job_id: UUID | str) -> bool:
        """Remove one dead letter for good. Answers False where it is none. Raises ``JobNotFound``."""
        return await self._dead.forget_one(as_job_id(job_id))

    async def purge_failed(self, older_than: Duration, filters: Filters | None = None) -> int:
        """Remove dead letters that died longer ago than this; answers how many."""
        return await self._dead.purge(seconds(older_than, "older_than"), _filters(filters))

    async def sweep_payloads(self) -> int:
        """Remove offloaded payloads whose jobs are gone or will never run again; answers how many. Workers do so by
        themselves, every minute. Raises ``MissingPayloadStore``."""
        return await self.offload.sweep()


def _filters(given: Filters | None) -> Filters:
    if given is not None and not isinstance(given, Filters):
        raise InvalidOption(f"filters is {given!r}; give Filters(queue=...), or None for all")
    return given or Filters()


def _states(given: Iterable[State | str]) -> tuple[State, ...]:
    try:
        return tuple(State(state) for state in checks.several(given, "states"))
    except ValueError as error:
        raise InvalidOption(f"{error}; states are {', '.join(State)}") from None


def _class_name(job_class: type | str) -> str:
    entry = getattr(job_class, "__job_class__", None)
    name = entry.name if entry is not None else job_class
    if not isinstance(name, str) or not name:
        raise InvalidOption(f"job class is {job_class!r}; give a job class, or its name")
    return checks.text(name, "job class")


def _class_scopes(job_class: type | str) -> list[str]:
    """Of its name, and of those that it had before."""
    name = _class_name(job_class)
    known = registry.find(name)
    return [f"class:{each}" for each in ([name] if known is None else [known.name, *known.aliases])]
