"""What of a job's traces is known from the store: its dispatch's span and every attempt's, both ways, whatever a trace backend
shows. Reads only.

The spans of attempts that failed are written down with the errors, that of one that asked for another try beside the job. Those
of the last attempt, and of one that was lost with its worker, follow from the lease (``attempt_ids``); whether the last one was
recorded is judged by the settings at hand, which should be the workers'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from rf_jobs.client.manager import QueueManager
from rf_jobs.core.records import AttemptError, JobRecord, Moment, moment, whole
from rf_jobs.model.envelope import Headers
from rf_jobs.store.shapes import score_ms
from rf_jobs.telemetry.attempt_spans import is_child
from rf_jobs.telemetry.sampling import Sampling
from rf_jobs.telemetry.traceparent import Traceparent, attempt_ids, parse
from rf_jobs.words.config_settings import TelemetrySettings
from rf_jobs.words.errors import SerializationError

ENDS = frozenset(
    {"retried", "snoozed", "parked", "reclaimed", "dead", "completed", "cancelled", "expired"}
)  # fmt: skip
"""Moments of a job's timeline that end an attempt."""
LEASE_EXPIRED = "lease expired "
"""Before the lease, where the timeline says why a job was taken back."""
_FAILED = ("retried", "dead", "reclaimed", "cancelled")


@dataclass(frozen=True)
class Spot:
    """A span's address."""

    trace_id: str
    span_id: str
    recorded: bool
    """Whether the span was written. The ids of others stand in logs alone."""


@dataclass(frozen=True)
class Track:
    """One attempt."""

    attempt: int
    started_at: datetime | None
    ended_at: datetime | None = None
    outcome: str = "running"
    """The moment of the timeline that ended it."""
    detail: str = ""
    error: AttemptError | None = None
    worker: str = ""
    span: Spot | None = None
    """None where nothing is known of one: it was not traced, or its end told nobody."""
    derived: bool = False
    """Whether its span's ids follow from its lease, and were not written down."""


@dataclass(frozen=True)
class Tracks:
    """All that is known of one job's traces."""

    record: JobRecord
    dispatch: Spot | None
    """The job's creation context; None where the dispatch was not traced."""
    conversation: str
    """What the spans of all jobs of its workflow share; its own id for a job of its own."""
    attempts: list[Track] = field(default_factory=list)
    """Oldest first."""

    @property
    def traced(self) -> bool:
        """Whether anything is known of a trace at all."""
        return self.dispatch is not None or any(track.span for track in self.attempts)

    @property
    def recorded(self) -> bool:
        """Whether any span was written."""
        spots = [self.dispatch, *(track.span for track in self.attempts)]
        return any(spot is not None and spot.recorded for spot in spots)


async def tracks_of(manager: QueueManager, job_id: str, settings: TelemetrySettings) -> Tracks:
    """Look at one job. Raises ``JobNotFound``, and ``InvalidOption`` for what is no job id."""
    record = await manager.job(job_id)
    store = manager.store
    meta = await store.run(store.commands.meta(str(record.id)))
    try:
        letter = await manager.inspector.envelope(str(record.id))
    except SerializationError:
        letter = None
    headers = (letter.hdr if letter else None) or Headers()
    tracks = _errors_told(_tracks(record.timeline), record.errors)
    tracks = _previous_told(tracks, meta.get("previous", ""))
    found = Tracks(record, _spot(headers.tp), headers.cv or str(record.id), tracks)
    if not (found.traced and settings.tracing):
        return found
    return replace(found, attempts=_derived(tracks, record, meta, _Deriving(str(record.id), headers, settings)))


def _spot(traceparent: str) -> Spot | None:
    known = parse(traceparent)
    return None if known is None else _at(known)


def _at(known: Traceparent) -> Spot:
    return Spot(f"{known.trace_id:032x}", f"{known.span_id:016x}", known.sampled)


def _tracks(timeline: Sequence[Moment]) -> list[Track]:
    """Attempts as the timeline tells of them: from each start to what ended it."""
    tracks: list[Track] = []
    for happened in timeline:
        if happened.event == "started":
            tracks.append(Track(whole(happened.detail.rpartition(" ")[2]), happened.at))
        elif happened.event in ENDS and tracks and tracks[-1].ended_at is None:
            tracks[-1] = replace(tracks[-1], ended_at=happened.at, outcome=happened.event, detail=happened.detail)
    return tracks


def _errors_told(tracks: Sequence[Track], errors: Sequence[AttemptError]) -> list[Track]:
    """The errors with the attempts that they ended. One whose start is no longer in the timeline makes an attempt of its own."""
    told = list(tracks)
    for error in errors:
        fit = [
            at for at, track in enumerate(told)
            if track.attempt == error.attempt and track.error is None and track.outcome in _FAILED
        ]  # fmt: skip
        if not fit:
            told.append(
                Track(error.attempt, error.started_at, error.at, "failed", "", error, error.worker, _spot(error.trace))
            )
            continue
        nearest = min(fit, key=lambda at: abs(((told[at].ended_at or error.at) - error.at).total_seconds()))
        told[nearest] = replace(told[nearest], error=error, worker=error.worker, span=_spot(error.trace))
    return sorted(told, key=lambda track: track.started_at or track.ended_at or errors[0].at)


def _previous_told(tracks: list[Track], traceparent: str) -> list[Track]:
    """The attempt that was tried again last: it may have asked for that, without an error that would be kept."""
    spot = _spot(traceparent)
    if spot is None or any(track.span and track.span.span_id == spot.span_id for track in tracks):
        return tracks
    for at in reversed(range(len(tracks))):
        if tracks[at].outcome == "retried":
            return [*tracks[:at], replace(tracks[at], span=tracks[at].span or spot), *tracks[at + 1 :]]
    return tracks


@dataclass(frozen=True)
class _Deriving:
    """Finds the ids of an attempt's span from its lease."""

    job_id: str
    headers: Headers
    settings: TelemetrySettings

    def told(self, track: Track, token: str, waited: float) -> Track:
        """The attempt with its span, which a worker that died can't have written."""
        ids, creation = attempt_ids(self.job_id, token), parse(self.headers.tp)
        if creation is not None and is_child(
            self.settings.trace,
            attempt=track.attempt,
            waited=waited,
            tracestate=self.headers.ts,
            creation=self.headers.tp,
        ):
            trace_id, kept = f"{creation.trace_id:032x}", creation.sampled
        else:
            trace_id, kept = ids[:32], Sampling(self.settings.sample_ratio, 0).keeps(int(ids[:32], 16))
        spot = Spot(trace_id, ids[32:], kept and track.outcome != "reclaimed")
        return replace(track, span=spot, derived=True, worker=track.worker or token.partition(".")[0])


def _derived(tracks: Sequence[Track], record: JobRecord, meta: Mapping[str, str], deriving: _Deriving) -> list[Track]:
    """The attempts with the ids that follow from leases that are known: of those that were lost, and of the last one."""
    told = list(tracks)
    for at, track in enumerate(told):
        if track.span is not None or track.started_at is None:
            continue
        if track.outcome == "reclaimed" and track.detail.startswith(LEASE_EXPIRED):
            waited = (track.started_at - record.dispatched_at).total_seconds() if record.dispatched_at else 0.0
            told[at] = deriving.told(track, track.detail.removeprefix(LEASE_EXPIRED), waited)
        elif at == len(told) - 1 and track.started_at == moment(meta.get("epoch")) and (token := meta.get("token", "")):
            waited = (whole(meta["epoch"]) - score_ms(whole(meta.get("score")))) / 1000
            told[at] = deriving.told(track, token.lstrip("!"), waited)
    return told
