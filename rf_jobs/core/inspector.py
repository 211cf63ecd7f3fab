"""The one read model behind the manager, the command line, the exporter and the console. Reads only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from rf_jobs.core.records import AttemptError, JobRecord, Moment, Progress, QueueInfo, WorkerInfo
from rf_jobs.model import codec, envelope
from rf_jobs.model.envelope import Envelope
from rf_jobs.store.redis import AsyncStore
from rf_jobs.store.shapes import QueueSurvey, Survey
from rf_jobs.words.errors import JobNotFound
from rf_jobs.words.states import FINAL, OPEN, State
from rf_jobs.words.timing import from_ms

PAGE = 200


@dataclass(frozen=True)
class Filters:
    """Which dead letters are meant. All that is given must hold."""

    queue: str | None = None
    job_class: str | None = None
    """The class's name, or its last part."""
    error: str | None = None
    """Part of the last error's type or message."""
    tag: str | None = None

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

    dispatched + replayed = those that are open + all that ever became final; and for each final state: all that became
    so = those still kept + those that left (replayed, discarded, evicted).
    """
    ledger = queue.ledger
    entered = ledger.get("dispatched", 0) + ledger.get("replayed", 0)
    standing = sum(queue.cards[state] for state in OPEN)
    missed = abs(entered - standing - sum(ledger.get(state, 0) for state in FINAL))
    for state in FINAL:
        left = ledger.get(f"evicted_{state}", 0)
        if state is State.DEAD:
            left += ledger.get("replayed", 0) + ledger.get("discarded", 0)
        missed += abs(ledger.get(state, 0) - left - queue.cards[state])
    return missed


class Inspector:
    """Answers questions about a store."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
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
        commands, key = self._commands, str(job_id)
        data, meta, errors, timeline, progress, result = await self._store.run_many(
            [
                commands.envelopes([key]),
                commands.meta(key),
                commands.lines("errors", key),
                commands.lines("timeline", key),
                commands.kept("progress", key),
                commands.kept("result", key),
            ]
        )
        if data[0] is None and not meta:
            raise JobNotFound(f"no job {key} is known; it was never dispatched here, or retention has removed it")
        letter = envelope.readable(data[0])
        queue = meta.get("queue") or (letter.queue if letter else "")
        state, due = await self._standing(key, queue, meta)
        return build_record(key, letter, meta, queue, state, due, errors, timeline, progress, result)

    async def _standing(self, job_id: str, queue: str, meta: dict[str, str]) -> tuple[str, int | None]:
        """The job's state, and when it is due if it is scheduled. A job that never ran has no state written down."""
        state = meta.get("state", "")
        if state not in ("", "scheduled"):
            return state, None
        due, ready, blocked = await self._store.run_many(
            [self._commands.score(s, queue, job_id) for s in (State.SCHEDULED, State.READY, State.BLOCKED)]
        )
        if due is not None:
            return "scheduled", int(due)
        if ready is not None:
            return "ready", None
        return ("blocked" if blocked is not None else state or "ready"), None

    async def records(self, ids: list[str]) -> list[JobRecord]:
        """Records of these jobs; those that are gone are left out."""
        found = []
        for job_id in ids:
            try:
                found.append(await self.job(job_id))
            except JobNotFound:
                continue
        return found

    async def page(
        self, state: State, queue: str, offset: int, limit: int, *, newest_first: bool = False
    ) -> list[JobRecord]:
        """A page of a queue's jobs in one state."""
        listed = await self._store.run(self._commands.range(state, queue, offset, limit, newest_first=newest_first))
        return await self.records([job_id for job_id, _ in listed])

    async def queue_names(self) -> list[str]:
        """Names of all queues, sorted."""
        return await self._store.run(self._commands.queues())

    async def dead_ids(self, queue: str) -> AsyncIterator[list[str]]:
        """Ids of a queue's dead letters, oldest first, in pages that are fixed before the first is handed out."""
        total = await self._store.run(self._commands.count(State.DEAD, queue))
        ids = []
        for offset in range(0, total, 1000):
            ids += [i for i, _ in await self._store.run(self._commands.range(State.DEAD, queue, offset, 1000))]
        for at in range(0, len(ids), PAGE):
            yield ids[at : at + PAGE]

    async def matching(
        self, filters: Filters, keep: Callable[[JobRecord], bool] | None = None
    ) -> AsyncIterator[JobRecord]:
        """Dead letters that fit."""
        queues = [filters.queue] if filters.queue else await self.queue_names()
        for queue in queues:
            async for ids in self.dead_ids(queue):
                for record in await self.records(ids):
                    if filters.fits(record) and (keep is None or keep(record)):
                        yield record

    async def progress(self, job_id: UUID | str) -> Progress:
        """How far a job is. Raises ``JobNotFound``."""
        known, data = await self._store.run_many(
            [self._commands.exists("job", str(job_id)), self._commands.kept("progress", str(job_id))]
        )
        if not known:
            raise JobNotFound(f"no job {job_id} is known; it was never dispatched here, or retention has removed it")
        return read_progress(data) or Progress()

    async def workers(self) -> list[WorkerInfo]:
        """Worker processes that live, or did until a moment ago."""
        now, listed = await self._store.run_many([self._commands.time(), self._commands.workers()])
        if not listed:
            return []
        facts = await self._store.run_many([self._commands.worker(worker) for worker, _ in listed])
        return [worker_info(w, until, fact, now) for (w, until), fact in zip(listed, facts, strict=True) if fact]


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


def worker_info(worker: str, until_ms: float, facts: dict[str, str], now_ms: int) -> WorkerInfo:
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
        started_at=_moment(facts.get("started")),
        last_beat=_moment(facts.get("beat")),
        version=facts.get("version", ""),
        utilization=float(facts.get("utilization", "0")),
        facts=facts,
    )


def read_progress(data: bytes | None) -> Progress | None:
    """Stored progress, None where there is none."""
    if data is None:
        return None
    value = codec.decode_value(data)
    return Progress(value["current"], value["total"], value["message"])


def build_record(
    job_id: str, letter: Envelope | None, meta: dict[str, str], queue: str, state: str, due: int | None,
    errors: list[bytes], timeline: list[bytes], progress: bytes | None, result: bytes | None,
) -> JobRecord:  # fmt: skip
    """A record from what lies in the store."""
    attempt = int(meta.get("attempt", "0"))
    return JobRecord(
        id=UUID(job_id),
        job_class=letter.job if letter else "",
        queue=queue,
        state=state,
        priority=int(meta.get("priority", letter.pri if letter else 1)),
        attempt=attempt,
        crashes=int(meta.get("crashes", "0")),
        dispatched_at=from_ms(letter.at) if letter else None,
        started_at=_moment(meta.get("epoch")),
        finished_at=_moment(meta.get("finished")),
        due_at=from_ms(due) if due is not None else None,
        expires_at=from_ms(letter.exp) if letter and letter.exp else None,
        worker=meta.get("token", "").lstrip("!").partition(".")[0],
        reason=meta.get("reason", ""),
        tags=tuple(letter.tags) if letter else (),
        payload=_payload(letter),
        max_attempts=(letter.max or None) if letter else None,
        errors=[_error(line) for line in errors],
        timeline=_timeline(letter, meta, state, timeline),
        progress=read_progress(progress),
        result=codec.decode_value(result) if result is not None else None,
        has_result=result is not None,
        trace_id=letter.hdr.tp.split("-")[1] if letter and letter.hdr and letter.hdr.tp.count("-") == 3 else "",
        cancel_requested="cancel" in meta,
        was_delayed=bool(letter and letter.due),
    )


def _payload(letter: Envelope | None) -> Any:
    return envelope.payload(letter) if letter else None


def _timeline(letter: Envelope | None, meta: dict[str, str], state: str, kept: list[bytes]) -> list[Moment]:
    """Plain moments follow from the times that are stored anyway; only what is not plain was written down."""
    moments = [Moment(from_ms(letter.at), "dispatched", letter.queue)] if letter else []
    for line in kept:
        at, _, rest = line.decode().partition(" ")
        event, _, detail = rest.partition(" ")
        moments.append(Moment(from_ms(int(at)), event, detail))
    if "epoch" in meta:
        moments.append(
            Moment(from_ms(int(meta["epoch"])), "started", f"attempt {max(int(meta.get('attempt', '1')), 1)}")
        )
    if "finished" in meta and state in ("completed", "cancelled", "expired"):
        moments.append(Moment(from_ms(int(meta["finished"])), state, meta.get("reason", "")))
    order = {"dispatched": 0, "started": 1}
    return sorted(moments, key=lambda m: (m.at, order.get(m.event, 2)))


def _error(line: bytes) -> AttemptError:
    value = codec.decode_value(line)
    started = value.get("started")
    return AttemptError(
        type=str(value.get("type", "")),
        message=str(value.get("message", "")),
        traceback=str(value.get("traceback", "")),
        worker=str(value.get("worker", "")),
        attempt=int(value.get("attempt", 0)),
        at=from_ms(int(value.get("at", 0))),
        started_at=from_ms(started) if started else None,
    )


def _moment(value: str | None) -> Any:
    return from_ms(float(value)) if value else None
