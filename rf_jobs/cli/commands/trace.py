"""``rf-jobs trace``: where a job's spans are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from rf_jobs.cli import output, shapes
from rf_jobs.cli.exits import Exit
from rf_jobs.cli.options import common, setting_option
from rf_jobs.cli.session import Session
from rf_jobs.cli.wording import class_name, duration, short, when
from rf_jobs.words.config_settings import TelemetrySettings
from rf_jobs.words.printing import clean

if TYPE_CHECKING:
    from rf_jobs.telemetry.tracks import Spot, Track, Tracks


@click.command
@click.argument("job_id", metavar="ID")
@setting_option("jobs.telemetry.sample_ratio")
@setting_option("jobs.telemetry.trace")
@common()
def trace(session: Session, job_id: str) -> int:
    """Show what is known of a job's traces: the span of its dispatch, and every attempt's, with trace and span ids.

    All of it comes from the store, so it is there whatever the trace backend keeps. What follows from a job's lease and not
    from what was written down is judged by the settings here ([jobs.telemetry]); they should be the workers'. Exits with 1
    where the job was not traced.
    """
    from rf_jobs.telemetry.tracks import tracks_of  # noqa: PLC0415 (--help needs no tracing)

    settings = session.settings.telemetry
    found = session.run(lambda manager: tracks_of(manager, job_id, settings))
    advice = _advice(found, settings)
    if session.json:
        output.document(_shape(found, advice))
    else:
        for line in _lines(found):
            click.echo(line)
        if advice:
            click.echo(f"\n{advice}")
    return Exit.OK if found.traced else Exit.NO


def _advice(found: Tracks, settings: TelemetrySettings) -> str:
    """What there is to say where spans are missing; '' where there is nothing."""
    here = "" if settings.tracing else " (here it is off)"
    if not found.traced:
        return (
            "this job was not traced: tracing was off, or not wired, where it was dispatched and where it ran. Switch it on with"
            f" tracing = true in [jobs.telemetry] (RF_JOBS_TELEMETRY_TRACING=true){here} for workers, and in your own programs with"
            " `async with telemetry(manager)` around what dispatches"
        )
    if not found.recorded:
        return (
            "no span of it has been recorded: it belongs to the traces that are left out. Failures are recorded always, of the rest a"
            f" share: sample_ratio in [jobs.telemetry] (here {settings.sample_ratio:g}); 1 records all"
        )
    return ""


# --- for people ------------------------------------------------------------------------------------------------------


def _lines(found: Tracks) -> Iterator[str]:
    record = found.record
    yield click.style(
        f"{class_name(record.job_class)} {record.id} in {clean(record.queue)} is {record.state}", bold=True
    )
    yield f"dispatched {when(record.dispatched_at)}"
    yield f"│  {_spot(found.dispatch, 'not traced')}"
    for at, track in enumerate(found.attempts):
        last = at == len(found.attempts) - 1
        yield f"{'└─' if last else '├─'} attempt {track.attempt}, started {when(track.started_at)}: {_outcome(track)}"
        yield f"{'  ' if last else '│ '}   {_spot(track.span, _why_none(found, track))}{_place(found.dispatch, track)}"
    if not found.attempts:
        yield "└─ no attempt yet"
    yield ""
    if found.conversation != str(record.id):
        yield f"conversation {clean(found.conversation)}: all jobs of its workflow have it (messaging.message.conversation_id)"
    for kind, group in (("batch", record.batch), ("chain", record.chain)):
        if group:
            yield f"{kind} {clean(group)}: rf-jobs batches show {clean(group)}"
    yield f'all its spans: {{ span.messaging.message.id = "{record.id}" }} in TraceQL'


def _spot(spot: Spot | None, none: str) -> str:
    if spot is None:
        return none
    return f"trace {spot.trace_id}, span {spot.span_id}{'' if spot.recorded else ', not recorded'}"


def _place(dispatch: Spot | None, track: Track) -> str:
    if track.span is None:
        return ""
    if dispatch is not None and dispatch.trace_id == track.span.trace_id:
        return ", in the dispatch's trace"
    return ", a trace of its own"


def _why_none(found: Tracks, track: Track) -> str:
    if not found.traced:
        return "not traced"
    if track.outcome == "snoozed":
        return "the ids of its span are not kept"
    return "no span of it is known: it was left out, or its worker had tracing off"


def _outcome(track: Track) -> str:
    took = (track.ended_at - track.started_at).total_seconds() if track.ended_at and track.started_at else None
    after = "" if took is None else f" after {duration(max(0.0, took))}"
    error = track.error
    why = f": {short(f'{error.type}: {error.message}')}" if error is not None else ""
    return f"{clean(track.outcome)}{after}{why}"


# --- for programs ----------------------------------------------------------------------------------------------------


def _shape(found: Tracks, advice: str) -> dict[str, Any]:
    record = found.record
    return {
        "id": str(record.id),
        "class": record.job_class,
        "queue": record.queue,
        "state": record.state,
        "traced": found.traced,
        "recorded": found.recorded,
        "dispatched_at": shapes.time(record.dispatched_at),
        "dispatch": _spot_shape(found.dispatch),
        "conversation": found.conversation,
        "batch": record.batch or None,
        "chain": record.chain or None,
        "attempts": [
            {
                "attempt": track.attempt,
                "started_at": shapes.time(track.started_at),
                "ended_at": shapes.time(track.ended_at),
                "outcome": track.outcome,
                "error": None if track.error is None else {"type": track.error.type, "message": track.error.message},
                "worker": track.worker or None,
                "span": _spot_shape(track.span),
                "derived": track.derived,
            }
            for track in found.attempts
        ],
        "advice": advice or None,
    }


def _spot_shape(spot: Spot | None) -> dict[str, Any] | None:
    if spot is None:
        return None
    return {"trace_id": spot.trace_id, "span_id": spot.span_id, "recorded": spot.recorded}
