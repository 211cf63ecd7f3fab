"""What stands in for the store: it keeps dispatches, and refuses and merges those that the store would."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from rf_jobs.client.dispatcher import Asked, difference
from rf_jobs.client.dispatching import Preparer
from rf_jobs.client.pending import Choices
from rf_jobs.client.protection import Protection
from rf_jobs.core.transitions import Dispatching, rejected
from rf_jobs.model.events import Event, EventBus, JobCancelled, JobDeduplicated
from rf_jobs.model.job import Job
from rf_jobs.store import options
from rf_jobs.testing.dispatched import Dispatched, DispatchedGroup, dispatched
from rf_jobs.testing.locks import Locks
from rf_jobs.words.errors import DuplicateJob


@dataclass(frozen=True)
class Kept:
    """What became of one dispatch."""

    id: UUID
    """What the dispatch answers with."""
    record: Dispatched[Any] | None
    """None where nothing new was enqueued."""
    data: bytes = b""
    """The envelope."""


class Recorder:
    """Keeps what one stand-in was given. Any thread may call it."""

    def __init__(self, preparer: Preparer, protection: Protection, bus: EventBus) -> None:
        self._preparer = preparer
        self._protection = protection
        self._bus = bus
        self._lock = threading.RLock()
        self.records: list[Dispatched[Any]] = []
        self.groups: list[DispatchedGroup] = []
        self._known: dict[UUID, bytes] = {}
        self.locks = Locks()

    def forget(self) -> None:
        """Forget all."""
        with self._lock:
            self.records, self.groups, self._known, self.locks = [], [], {}, Locks()

    def record(self, asked: Sequence[Asked]) -> list[Kept]:
        """Check all, then keep what is new. Raises as the real dispatch does, with nothing kept: under an id that is taken
        the same job is the caller's own dispatch sent again, and another is a ``DuplicateJob``."""
        items = [self._preparer.prepare(job, choices) for job, choices in asked]
        told: list[Event] = []
        with self._lock:
            self._refuse(items)
            kept = [self._keep(item, job, choices, told) for item, (job, choices) in zip(items, asked, strict=True)]
        self._bus.emit_all(told)
        return kept

    def _refuse(self, items: Sequence[Dispatching]) -> None:
        known = dict(self._known)
        for item in items:
            holder = known.setdefault(item.id, item.draft.data)
            if holder is not item.draft.data and (why := difference(item.draft.id, holder, item.draft.data)):
                self._reject(item)
                raise DuplicateJob(f"{why}; nothing was enqueued")

    def _keep(self, item: Dispatching, job: Job, choices: Choices, told: list[Event]) -> Kept:
        event = item.event
        merged = JobDeduplicated(event.job_id, event.queue, event.job_class)
        if item.id in self._known:
            told.append(merged)
            return Kept(item.id, None)
        asked = options.decode(item.draft.options)
        record = dispatched(job, choices, item, self._protection.read(item.draft.id, item.draft.data))
        if asked.unique is not None:
            taken = self.locks.take(item.id, asked.unique)
            if taken.holder is not None:
                if asked.unique.conflict == "raise":
                    self._reject(item)
                    raise DuplicateJob(
                        f"an equal {event.job_class} holds the unique lock: job {taken.holder}; nothing was enqueued"
                    )
                told.append(merged)
                return Kept(taken.holder, None)
            if taken.replaces is not None:
                self._take_away(taken.replaces, told)
            if taken.delay_ms is not None:
                record = dataclasses.replace(record, delay=taken.delay_ms / 1000, at=None)
        self._known[item.id] = item.draft.data
        self.records.append(record)
        told.append(event)
        return Kept(item.id, record, item.draft.data)

    def _take_away(self, job_id: UUID, told: list[Event]) -> None:
        for at, record in enumerate(self.records):
            if record.id == job_id:
                told.append(JobCancelled(str(job_id), record.queue, record.envelope.job))
                del self.records[at]
                return

    def _reject(self, item: Dispatching) -> None:
        self._bus.emit(rejected(item.event, DuplicateJob.__name__))
