"""What the read model answers with, and how it is made from what lies in the store.

Whatever lies there makes a record: one that is damaged must not hide its neighbours, nor itself. What can't be read is shown
as text; a time that no ``datetime`` can hold is the nearest that any time zone can show; a number that is none is 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from rf_jobs.core.cancellations import STOPPED, Cancellation, stage_of
from rf_jobs.model import codec, envelope
from rf_jobs.model.catalog import Catalog
from rf_jobs.model.envelope import Envelope
from rf_jobs.words.states import FINAL
from rf_jobs.words.timing import from_ms, now_ms

FIRST_MS = round(datetime(1, 1, 2, tzinfo=UTC).timestamp() * 1000)
LAST_MS = round(datetime(9999, 12, 30, tzinfo=UTC).timestamp() * 1000)
UNREADABLE = "Unreadable"
"""The type of an error, and the event of a moment, whose line in the store is damaged; both are of 1970."""
MAX_SHOWN = 2_000
"""Characters of such a line."""


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    current: float = 0.0
    total: float = 0.0
    message: str = ""

    @property
    def percentage(self) -> float:
        """0 to 100; 0 where the total is not known."""
        return 100.0 * self.current / self.total if self.total else 0.0


@dataclass(frozen=True)
class AttemptError:
    """One failure in a job's history."""

    type: str
    message: str
    traceback: str
    worker: str
    attempt: int
    at: datetime
    started_at: datetime | None = None
    trace: str = ""
    """traceparent of the attempt's span, where one was recorded."""


@dataclass(frozen=True)
class Moment:
    """One transition in a job's timeline."""

    at: datetime
    event: str
    detail: str = ""


@dataclass(frozen=True)
class JobRecord:
    """All that is known of one job."""

    id: UUID
    job_class: str
    """The class's stable name; empty where the envelope is gone or cannot be read."""
    queue: str
    state: str
    """One of ``State``."""
    priority: int
    attempt: int
    """How many attempts there were, the one that runs included; 0 before the first."""
    crashes: int
    """How often a process died over it."""
    dispatched_at: datetime | None
    """By the client's clock; the other times are the server's."""
    started_at: datetime | None
    """When its last lease was taken."""
    finished_at: datetime | None
    due_at: datetime | None
    """When it may run; None unless it is scheduled."""
    expires_at: datetime | None
    worker: str
    """Id of the worker that leased it last."""
    reason: str
    """Why it ended or was parked, where there is something to say."""
    tags: tuple[str, ...]
    payload: Any
    """Its fields as plain data; of those that are encrypted, and of a payload that is stored elsewhere, a placeholder."""
    max_attempts: int | None
    """What the dispatch asked for; None leaves it to the class."""
    errors: list[AttemptError] = field(default_factory=list)
    """Oldest first; the last 50."""
    timeline: list[Moment] = field(default_factory=list)
    """Oldest first: dispatch, each start, the end, and what is not plain in between (the last 100)."""
    progress: Progress | None = None
    result: Any = None
    """What the handler returned, while that is kept."""
    has_result: bool = False
    """Whether a result is kept; a handler that answers with None has none."""
    trace_id: str = ""
    """Of the dispatch; empty where it was not traced. See ``last_trace_id``."""
    cancel_requested: bool = False
    """Whether it was asked to stop while it ran."""
    cancellation: Cancellation | None = None
    """How far a request to stop it has come; None where nobody asked."""
    was_delayed: bool = False
    """Whether it was dispatched to run later."""
    batch: str = ""
    """Id of the batch that it belongs to, itself or by its chain."""
    chain: str = ""
    """Id of the chain that it is a step of."""
    held_by: str = ""
    """What keeps it from starting: a limit, ``name`` or ``name/key``; or ``!`` and a pause, ``!class:<name>`` or ``!key:<tag>``."""
    unique_lock: str = ""
    """The unique lock that it asked for, as the store names it."""

    @property
    def last_error(self) -> AttemptError | None:
        """The newest failure."""
        return self.errors[-1] if self.errors else None

    @property
    def last_trace_id(self) -> str:
        """Of the last failed attempt that was traced, else of the dispatch: they differ where attempts start traces of
        their own."""
        return next((found for error in reversed(self.errors) if (found := trace_id_of(error.trace))), self.trace_id)


@dataclass(frozen=True)
class QueueInfo:
    """One queue."""

    name: str
    counts: dict[str, int]
    paused: bool
    oldest_ready_seconds: float
    oldest_running_seconds: float
    oldest_dead_seconds: float
    ledger: dict[str, int]
    """What ever happened on the queue, by ledger event; docs/reference/state-machine.md has them all."""
    imbalance: int
    """0 while the conservation law holds: jobs that the ledger and the structures disagree about."""

    @property
    def size(self) -> int:
        """How many are ready."""
        return self.counts["ready"]


@dataclass(frozen=True)
class WorkerInfo:
    """One worker process."""

    id: str
    host: str
    pid: int
    queues: tuple[str, ...]
    state: str
    """running, quiet (takes no more jobs), stopping, or stale: silent for longer than it should be."""
    slots: int
    busy: int
    started_at: datetime | None
    last_beat: datetime | None
    version: str
    utilization: float
    facts: dict[str, str] = field(default_factory=dict)
    """All that its record in the store holds, as text: also buffered, done, port, and its last fetch."""
    catalog: Catalog | None = None
    """The job classes that it can run; None where it has not said so."""


@dataclass(frozen=True)
class Stored:
    """What lies in the store of one job."""

    id: UUID
    data: bytes | None
    """The envelope."""
    meta: Mapping[str, str]
    errors: list[bytes]
    timeline: list[bytes]
    progress: bytes | None
    result: bytes | None

    @property
    def is_known(self) -> bool:
        """Whether there is such a job."""
        return self.data is not None or bool(self.meta)

    @property
    def state(self) -> str:
        """As it is written down; '' of a job that never ran."""
        return self.meta.get("state", "")


@dataclass(frozen=True)
class Place:
    """Where a job stands; ``due`` (ms) if it is scheduled."""

    queue: str
    state: str
    due: float | None = None


def build_record(stored: Stored, letter: Envelope | None, place: Place) -> JobRecord:
    """A record from what lies in the store; ``letter`` is the envelope where it can be read."""
    meta = stored.meta
    return JobRecord(
        id=stored.id,
        job_class=letter.job if letter else "",
        queue=place.queue,
        state=place.state,
        priority=whole(meta.get("priority", letter.pri if letter else 1)),
        attempt=whole(meta.get("attempt")),
        crashes=whole(meta.get("crashes")),
        dispatched_at=_time(letter.at) if letter else None,
        started_at=moment(meta.get("epoch")),
        finished_at=moment(meta.get("finished")),
        due_at=moment(place.due),
        expires_at=moment(whole(stored.meta.get("exp")) or (letter.exp if letter else 0)),
        worker=meta.get("token", "").lstrip("!").partition(".")[0],
        reason=meta.get("reason", ""),
        tags=tuple(letter.tags) if letter else (),
        payload=_payload(letter) if letter else None,
        max_attempts=(letter.max or None) if letter else None,
        errors=[read_error(line) for line in stored.errors],
        timeline=_timeline(letter, meta, place.state, stored.timeline),
        progress=read_progress(stored.progress),
        result=None if stored.result is None else _value(stored.result),
        has_result=stored.result is not None,
        trace_id=trace_id_of(letter.hdr.tp) if letter and letter.hdr else "",
        cancel_requested="cancel" in meta,
        cancellation=cancellation_of(meta, place.state),
        was_delayed=bool(letter and letter.due > letter.at),
        batch=letter.bat if letter else "",
        chain=letter.chn if letter else "",
        held_by=meta.get("held", ""),
        unique_lock=next((word[1:] for word in meta.get("links", "").split() if word.startswith("u")), ""),
    )


def cancellation_of(meta: Mapping[str, str], state: str) -> Cancellation | None:
    """How far a request to stop the job has come; None where there is none."""
    if "cancel" not in meta and "asked" not in meta:
        return None
    reason = meta.get("cancel", meta.get("reason", ""))  # one that waited has stopped at once, for that reason
    stage = stage_of(state, acknowledged="heard" in meta)
    ended = moment(meta.get("finished")) if stage == STOPPED else None
    return Cancellation(stage, reason, moment(meta.get("asked")), moment(meta.get("heard")), ended)


def read_progress(data: bytes | None) -> Progress | None:
    """Stored progress, None where there is none that can be read."""
    value = None if data is None else _value(data)
    if not isinstance(value, dict):
        return None
    return Progress(_number(value.get("current")), _number(value.get("total")), str(value.get("message", "")))


def error_entry(
    kind: str, message: str, trace: str = "", *, worker: str = "", attempt: int = 0, ran: float | None = None, span: str = ""
) -> bytes:  # fmt: skip
    """A line of the error history, as it is read here. What is not known is left out; the store adds which attempt of which
    worker it was to a report that does not say. ``ran``: for how long (seconds); ``span``: the attempt's traceparent."""
    at = now_ms()
    entry: dict[str, Any] = {"type": kind, "message": message, "traceback": trace, "at": at}
    if worker:
        entry["worker"] = worker
    if attempt:
        entry["attempt"] = attempt
    if ran is not None:
        entry["started"] = at - round(ran * 1000)
    if span:
        entry["trace"] = span
    return codec.encode_value(entry, "error")


def clip(value: object, limit: int = 200) -> str:
    """Text that can be written as UTF-8, which one with lone surrogates can't, and is not longer than this."""
    text = str(value).encode("utf-8", "replace").decode()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def moment(ms: object) -> datetime | None:
    """A stored time; None where there is none."""
    return _time(ms) if ms else None


def trace_id_of(traceparent: str) -> str:
    """The trace's id; '' where there is none."""
    return traceparent.split("-")[1] if traceparent.count("-") == 3 else ""


def _time(ms: object) -> datetime:
    return from_ms(min(max(whole(ms), FIRST_MS), LAST_MS))


def _number(value: object) -> float:
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return 0.0 if math.isnan(found) else found


def whole(value: object) -> int:
    """A stored number; 0 where it is none."""
    return int(min(max(_number(value), -1e18), 1e18))


def _shown(data: bytes) -> str:
    return data[: 4 * MAX_SHOWN].decode("utf-8", "replace")[:MAX_SHOWN]


def _value(data: bytes) -> Any:
    """Decoded, or as text where it can't be."""
    try:
        return codec.decode_value(data)
    except (ValueError, RecursionError):
        return _shown(data)


def _payload(letter: Envelope) -> Any:
    try:
        return envelope.payload(letter)
    except (ValueError, RecursionError):
        return _shown(bytes(letter.args))


def _timeline(letter: Envelope | None, meta: Mapping[str, str], state: str, kept: list[bytes]) -> list[Moment]:
    """Plain moments follow from the times that are stored anyway; only what is not plain was written down, in order."""
    moments = [Moment(_time(letter.at), "dispatched", letter.queue)] if letter else []
    moments += [_noted(line) for line in kept]
    if "epoch" in meta and not any(known.event == "started" and known.at == _time(meta["epoch"]) for known in moments):
        start = Moment(_time(meta["epoch"]), "started", f"attempt {max(whole(meta.get('attempt', '1')), 1)}")
        # Within one millisecond: after what ended the attempt before, before what ended this one.
        at = len(moments)
        while at and (moments[at - 1].at, moments[at - 1].event in FINAL) > (start.at, False):
            at -= 1
        moments.insert(at, start)
    if "finished" in meta and state in ("completed", "cancelled", "expired"):
        moments.append(Moment(_time(meta["finished"]), state, meta.get("reason", "")))
    return sorted(moments, key=lambda moment: moment.at)


def _noted(line: bytes) -> Moment:
    at, _, rest = _shown(line).partition(" ")
    event, _, detail = rest.partition(" ")
    return Moment(_time(at), event, detail) if at.isdecimal() and event else Moment(_time(0), UNREADABLE, _shown(line))


def read_error(line: bytes) -> AttemptError:
    """A line of the error history."""
    value = _value(line)
    if not isinstance(value, dict):
        return AttemptError(UNREADABLE, _shown(line), "", "", 0, _time(0))
    return AttemptError(
        type=str(value.get("type", "")),
        message=str(value.get("message", "")),
        traceback=str(value.get("traceback", "")),
        worker=str(value.get("worker", "")),
        attempt=whole(value.get("attempt")),
        at=_time(value.get("at")),
        started_at=moment(value.get("started")),
        trace=str(value.get("trace", "")),
    )
