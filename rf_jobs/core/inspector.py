"""The one read model behind the manager, the command line, the exporter and the console. Reads only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from rf_jobs.core.joblog import LogLine, read_lines
from rf_jobs.core.records import (
    JobRecord,
    Place,
    Progress,
    QueueInfo,
    Stored,
    WorkerInfo,
    build_record,
    moment,
    read_progress,
)
from rf_jobs.core.revealing import revealed, revealed_lines, revealed_message
from rf_jobs.model import catalog, envelope
from rf_jobs.model.catalog import Catalog
from rf_jobs.model.crypto import Keyring
from rf_jobs.model.envelope import Envelope
from rf_jobs.store.calls import Call
from rf_jobs.store.redis import AsyncStore
from rf_jobs.store.shapes import QueueSurvey, Survey
from rf_jobs.words.errors import JobNotFound
from rf_jobs.words.states import FINAL, OPEN, State

MAX_LINES = 1_000_000
PAGE = 100
"""Records that one round trip asks for."""
UNWRITTEN = (State.SCHEDULED, State.READY, State.BLOCKED)
"""Where a job stands that has no state written down, or one that promotion does not rewrite."""


@dataclass(frozen=True)
class Filters:
    """Which dead letters are meant. All that is given must hold."""

    queue: str | None = None
    job_class: str | None = None
    """The class's name, or its last part."""
    error: str | None = None
    """Part of the last error's type or message."""
    tag: str | None = None

    @property
    def need_records(self) -> bool:
        """Whether more than the queue is asked for, so that each record has to be looked at."""
        return (self.job_class, self.error, self.tag) != (None, None, None)

    def fits(self, record: JobRecord) -> bool:
        """Whether the record is one of those meant."""
        last = record.last_error
        return (
            (self.job_class is None or self.job_class in (record.job_class, record.job_class.rpartition(":")[2]))
            and (self.error is None or (last is not None and self.error in f"{last.type}: {last.message}"))
            and (self.tag is None or self.tag in record.tags)
        )


def imbalance(queue: QueueSurvey) -> int:
    """How many jobs the conservation law misses, summed over the open jobs and each final state's bookkeeping.

    dispatched + replayed + restored = those that are open + all that ever became final; and for each final state: all that
    became so = those still kept + those that left (replayed, restored, discarded, evicted).
    """
    ledger = queue.ledger
    entered = ledger.get("dispatched", 0) + ledger.get("replayed", 0) + ledger.get("restored", 0)
    standing = sum(queue.cards[state] for state in OPEN)
    missed = abs(entered - standing - sum(ledger.get(state, 0) for state in FINAL))
    for state in FINAL:
        left = ledger.get(f"evicted_{state}", 0)
        if state is State.DEAD:
            left += ledger.get("replayed", 0) + ledger.get("discarded", 0)
        elif state is State.CANCELLED:
            left += ledger.get("restored", 0)
        missed += abs(ledger.get(state, 0) - left - queue.cards[state])
    return missed


class Inspector:
    """Answers questions about a store. What is kept sealed beside a job, such as its result, it opens with ``keyring``; without
    one it masks that."""

    def __init__(self, store: AsyncStore, keyring: Keyring | None = None) -> None:
        self._store = store
        self.keyring = keyring
        self._commands = store.commands

    async def survey(self) -> Survey:
        """All queues at one instant, in one script whose cost does not grow with the jobs."""
        return await self._store.run(self._commands.survey())

    async def queues(self) -> list[QueueInfo]:
        """All queues that ever held a job."""
        survey = await self.survey()
        return [queue_info(queue, survey.now_ms) for queue in survey.queues]

    async def envelope(self, job_id: str) -> Envelope | None:
        """The job's envelope, None where there is no such job. Raises ``SerializationError`` for a damaged one."""
        data = (await self._store.run(self._commands.envelopes([job_id])))[0]
        return None if data is None else envelope.decode(data)

    async def envelopes(self, ids: list[str]) -> dict[str, Envelope | None]:
        """Envelopes by id; None for a missing or damaged one."""
        if not ids:
            return {}
        found = await self._store.run(self._commands.envelopes(ids))
        return {job_id: envelope.readable(data) for job_id, data in zip(ids, found, strict=True)}

    async def job(self, job_id: UUID | str) -> JobRecord:
        """One job, whole. Raises ``JobNotFound``."""
        for record in await self.records([str(job_id)]):
            return record
        raise JobNotFound(f"no job {job_id} is known; it was never dispatched here, or retention has removed it")

    async def records(self, ids: Sequence[str], queue: str = "") -> list[JobRecord]:
        """Records of these jobs, in a few round trips; left out are those that are gone, and what is no job id.
        ``queue`` says where they stand, if that is known."""
        found: list[JobRecord] = []
        for at in range(0, len(ids), PAGE):
            jobs = await self._stored(ids[at : at + PAGE])
            letters = [envelope.readable(job.data) for job in jobs]
            known = [
                queue or job.meta.get("queue") or (letter.queue if letter else "")
                for job, letter in zip(jobs, letters, strict=True)
            ]
            places = await self._places(jobs, known)
            found += map(build_record, jobs, letters, places)
        return found

    async def _stored(self, ids: Sequence[str]) -> list[Stored]:
        """What lies in the store of those that are known, in one round trip."""
        uuids = {job_id: uuid for job_id in ids if (uuid := _uuid(job_id)) is not None}
        asked = [call for job_id in uuids for call in self._questions(job_id)]
        if not asked:
            return []
        replies = await self._store.run_many(asked)
        each = len(asked) // len(uuids)
        answers = [replies[at : at + each] for at in range(0, len(replies), each)]
        jobs = [Stored(uuid, data[0], *rest) for uuid, (data, *rest) in zip(uuids.values(), answers, strict=True)]
        return [self._opened(job) for job in jobs if job.is_known]

    def _opened(self, job: Stored) -> Stored:
        job_id = str(job.id)
        return replace(
            job, progress=self.shown("progress", job_id, job.progress), result=self.shown("result", job_id, job.result)
        )

    def shown(self, kind: str, job_id: str, data: bytes | None) -> bytes | None:
        """A job's result or progress, opened where it is sealed and there is the key, else masked."""
        reveal = revealed if kind == "result" else revealed_message
        return reveal(self.keyring, kind, job_id, data)

    def _questions(self, job_id: str) -> list[Call[Any]]:
        """In the order of the fields of ``Stored``."""
        commands = self._commands
        return [
            commands.envelopes([job_id]),
            commands.meta(job_id),
            commands.lines("errors", job_id),
            commands.lines("timeline", job_id),
            commands.kept("progress", job_id),
            commands.kept("result", job_id),
        ]

    async def _places(self, jobs: Sequence[Stored], queues: Sequence[str]) -> list[Place]:
        """Where each stands. Looked up for those that have no state written down; of one whose queue is not known either,
        since its envelope can't be read, in all queues."""
        names = await self.queue_names() if not all(queues) else []
        asked = [
            (at, queue, state)
            for at, (job, known) in enumerate(zip(jobs, queues, strict=True))
            if not known or job.state in ("", State.SCHEDULED)
            for queue in ([known] if known else names)
            for state in (UNWRITTEN if known else State)
        ]
        calls = [self._commands.score(state, queue, str(jobs[at].id)) for at, queue, state in asked]
        scores = await self._store.run_many(calls) if calls else []
        places = [Place(queue, job.state or State.READY) for job, queue in zip(jobs, queues, strict=True)]
        for (at, queue, state), score in reversed(list(zip(asked, scores, strict=True))):
            if score is not None:
                places[at] = Place(queue, state.value, score if state == State.SCHEDULED else None)
        return places

    async def ids(self, state: State, queue: str, offset: int, limit: int, *, newest_first: bool = False) -> list[str]:
        """Ids of a page of a queue's jobs in one state."""
        listed = await self._store.run(self._commands.range(state, queue, offset, limit, newest_first=newest_first))
        return [job_id for job_id, _ in listed]

    async def page(
        self, state: State, queue: str, offset: int, limit: int, *, newest_first: bool = False
    ) -> list[JobRecord]:
        """A page of a queue's jobs in one state."""
        return await self.records(await self.ids(state, queue, offset, limit, newest_first=newest_first), queue)

    async def count(self, state: State, queue: str) -> int:
        """How many jobs of a queue are in one state."""
        return await self._store.run(self._commands.count(state, queue))

    async def queue_names(self) -> list[str]:
        """Names of all queues, sorted."""
        return await self._store.run(self._commands.queues())

    async def dead_ids(self, queue: str) -> AsyncIterator[list[str]]:
        """Ids of a queue's dead letters, oldest first, in pages that are fixed before the first is handed out."""
        ids: list[str] = []
        for offset in range(0, await self.count(State.DEAD, queue), 1000):
            ids += await self.ids(State.DEAD, queue, offset, 1000)
        for at in range(0, len(ids), PAGE):
            yield ids[at : at + PAGE]

    async def matching(
        self, filters: Filters, keep: Callable[[JobRecord], bool] | None = None
    ) -> AsyncIterator[JobRecord]:
        """Dead letters that fit."""
        queues = [filters.queue] if filters.queue else await self.queue_names()
        for queue in queues:
            async for ids in self.dead_ids(queue):
                for record in await self.records(ids, queue):
                    if filters.fits(record) and (keep is None or keep(record)):
                        yield record

    async def progress(self, job_id: UUID | str) -> Progress:
        """How far a job is. Raises ``JobNotFound``."""
        known, data = await self._store.run_many(
            [self._commands.exists("job", str(job_id)), self._commands.kept("progress", str(job_id))]
        )
        if not known:
            raise JobNotFound(f"no job {job_id} is known; it was never dispatched here, or retention has removed it")
        return read_progress(self.shown("progress", str(job_id), data)) or Progress()

    async def log(self, job_id: UUID | str, after: int = 0) -> list[LogLine]:
        """A job's log lines behind number ``after``. Raises ``JobNotFound``."""
        known, (first, lines) = await self._store.run_many(
            [self._commands.exists("job", str(job_id)), self._commands.joblog(str(job_id), after, MAX_LINES)]
        )
        if not known:
            raise JobNotFound(f"no job {job_id} is known; it was never dispatched here, or retention has removed it")
        return read_lines(first, revealed_lines(self.keyring, str(job_id), lines))

    async def workers(self) -> list[WorkerInfo]:
        """Worker processes that live, or did until a moment ago."""
        now, listed = await self._store.run_many([self._commands.time(), self._commands.workers()])
        if not listed:
            return []
        facts = await self._store.run_many([self._commands.worker(worker) for worker, _ in listed])
        catalogs = await self._catalogs({fact["classes"] for fact in facts if "classes" in fact})
        return [
            worker_info(w, until, fact, now, catalogs.get(fact.get("classes", "")))
            for (w, until), fact in zip(listed, facts, strict=True)
            if fact
        ]

    async def _catalogs(self, digests: set[str]) -> dict[str, Catalog | None]:
        """What workers can run, by the digests that they name."""
        named = sorted(digests)
        found = await self._store.run_many([self._commands.catalog(digest) for digest in named]) if named else []
        return {digest: catalog.decode(data) for digest, data in zip(named, found, strict=True)}


def queue_info(queue: QueueSurvey, now_ms: int) -> QueueInfo:
    """A survey's row, for people."""

    def age(since: int | None) -> float:
        return max(0.0, (now_ms - since) / 1000) if since is not None else 0.0

    return QueueInfo(
        name=queue.name,
        counts=queue.cards,
        paused=queue.paused,
        oldest_ready_seconds=age(queue.oldest_ready_ms),
        oldest_running_seconds=age(queue.oldest_running_ms),
        oldest_dead_seconds=age(queue.oldest_dead_ms),
        ledger=queue.ledger,
        imbalance=imbalance(queue),
    )


def worker_info(
    worker: str, until_ms: float, facts: dict[str, str], now_ms: int, classes: Catalog | None = None
) -> WorkerInfo:
    """A worker's hash, for people."""
    slots, busy = int(facts.get("slots", "0")), int(facts.get("busy", "0"))
    return WorkerInfo(
        id=worker,
        host=facts.get("host", ""),
        pid=int(facts.get("pid", "0")),
        queues=tuple(q for q in facts.get("queues", "").split(",") if q),
        state="stale" if until_ms < now_ms else facts.get("state", "running"),
        slots=slots,
        busy=busy,
        started_at=moment(facts.get("started")),
        last_beat=moment(facts.get("beat")),
        version=facts.get("version", ""),
        utilization=float(facts.get("utilization", "0")),
        facts=facts,
        catalog=classes,
    )


def _uuid(job_id: str) -> UUID | None:
    try:
        return UUID(job_id)
    except ValueError:
        return None
