"""The ``process`` spans: one for each attempt that is recorded, current in its handler.

Whether an attempt is recorded is decided when it starts; one that was not is written after the fact if it fails, with its
true times and the ids that its handler saw. On the way of an unsampled success no span object is made.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    set_span_in_context,
)

from rf_jobs.model.context import JobContext
from rf_jobs.model.envelope import LINKED
from rf_jobs.model.events import AttemptEnded
from rf_jobs.telemetry.dispatch_spans import conversation
from rf_jobs.telemetry.lane_spans import LaneSpans
from rf_jobs.telemetry.spans import Attributes, Failure, SpanWriter, link_to, span_context
from rf_jobs.telemetry.traceparent import Traceparent, attempt_ids, parse
from rf_jobs.words.control import Discard, Retry, Snooze

Mode = Literal["auto", "link", "child", "new"]
CHILD_WAIT_SECONDS = 30.0
MAX_OPEN = 10_000
_UNSAMPLED = TraceFlags(TraceFlags.DEFAULT)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NOTHING = Context()


class Run:
    """An attempt whose span is written once the store has its outcome."""

    __slots__ = ("ctx", "end_ns", "laned", "parent", "span", "span_id", "start_ns", "trace_id")

    def __init__(
        self,
        ctx: JobContext,
        ids: tuple[int, int],
        parent: SpanContext | None,
        span: Span | None,
        start_ns: int,
        laned: bool,
    ) -> None:
        self.ctx = ctx
        self.trace_id, self.span_id = ids
        self.parent = parent
        self.span = span
        """None where it was not sampled when it started."""
        self.start_ns = start_ns
        self.end_ns = 0
        self.laned = laned
        """Sampled, and to be written to the fast lane if it goes well."""


def is_child(mode: Mode, *, attempt: int, waited: float, tracestate: str, creation: str) -> bool:
    """Whether an attempt's span is a child of its dispatch, or starts a trace of its own that links to it."""
    if not creation or mode in ("link", "new"):
        return False
    if mode == "child":
        return True
    return attempt == 1 and waited <= CHILD_WAIT_SECONDS and LINKED not in tracestate.split(",")


class AttemptSpans:
    """Goes around handlers, and keeps what is to be written until the event of the attempt's end arrives."""

    def __init__(self, writer: SpanWriter, mode: Mode, *, lane: LaneSpans | None = None) -> None:
        self._writer = writer
        self._lane = lane
        self._mode: Mode = mode
        self._open: dict[str, Run] = {}

    async def around(self, ctx: JobContext, handle: Callable[[], Awaitable[Any]]) -> Any:
        """Run a handler inside its span, recorded or not."""
        ids_text = attempt_ids(ctx.id, ctx.token)
        span_id = int(ids_text[32:], 16)
        creation = parse(ctx.traceparent) if self._is_child(ctx) else None
        if creation is not None:
            trace_id, wanted = creation.trace_id, creation.sampled
            ctx.trace = f"00-{ctx.traceparent[3:36]}{ids_text[32:]}-00"
        else:
            trace_id = int(ids_text[:32], 16)
            wanted = self._writer.sampling.keeps(trace_id)
            ctx.trace = f"00-{ids_text[:32]}-{ids_text[32:]}-00"
        start_ns = time.time_ns()
        span: Span | None = None
        laned = False
        if wanted and self._writer.sampling.take():
            if self._lane is not None:
                laned = True
                ctx.trace = ctx.trace[:-2] + "01"
            else:
                span = self._start(ctx, (trace_id, span_id), creation, start_ns)
        flags = _SAMPLED if laned else _UNSAMPLED
        current = span or NonRecordingSpan(SpanContext(trace_id, span_id, False, flags))
        attached = attach(set_span_in_context(current, _NOTHING))
        talk = conversation.set(ctx.conversation or ctx.id)
        try:
            value = await handle()
        except BaseException as error:
            self._ended(ctx, (trace_id, span_id), creation, span, start_ns, error, laned)
            raise
        else:
            self._ended(ctx, (trace_id, span_id), creation, span, start_ns, None, laned)
            return value
        finally:
            conversation.reset(talk)
            detach(attached)

    def _is_child(self, ctx: JobContext) -> bool:
        return is_child(
            self._mode, attempt=ctx.attempt, waited=ctx.wait, tracestate=ctx.tracestate, creation=ctx.traceparent
        )

    def _start(
        self, ctx: JobContext, ids: tuple[int, int], creation: Traceparent | None, start_ns: int, *, forced: bool = False
    ) -> Span | None:  # fmt: skip
        attributes = self._writer.attributes("process", ctx.queue, ctx.job_class, ctx.id, ctx.conversation)
        attributes["rf_jobs.job.attempt"] = ctx.attempt
        span = self._writer.start(
            self._writer.name("process", ctx.queue, ctx.job_class), SpanKind.CONSUMER, attributes=attributes,
            parent=None if creation is None else span_context(creation, ctx.tracestate),
            links=self._links(ctx), ids=ids, start_ns=start_ns, forced=forced,
        )  # fmt: skip
        if not span.is_recording():
            return None
        own = span.get_span_context()
        ctx.trace = f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"
        return span

    def _links(self, ctx: JobContext) -> list[Link]:
        if self._mode == "new":
            return []
        return [
            *link_to(ctx.traceparent, "creation", ctx.id),
            *link_to(ctx.previous_traceparent, "previous_attempt", ctx.id),
        ]

    def _ended(
        self, ctx: JobContext, ids: tuple[int, int], creation: Traceparent | None, span: Span | None, start_ns: int,
        error: BaseException | None, laned: bool,
    ) -> None:  # fmt: skip
        if span is None and not laned and not _must_be_seen(ctx, error):
            self._writer.sampled_out.value += 1
            ctx.trace = ""
            return
        if span is None:
            ctx.trace = ctx.trace[:-2] + "01"
        run = Run(ctx, ids, None if creation is None else span_context(creation, ctx.tracestate), span, start_ns, laned)
        run.end_ns = time.time_ns()
        if len(self._open) >= MAX_OPEN:
            self._forget(self._open.pop(next(iter(self._open))))
            self._writer.dropped.value += 1
        self._open[ctx.trace] = run

    # --- the end -------------------------------------------------------------------------------------------------

    def take(self, trace: str) -> Run | None:
        """The attempt that this traceparent belongs to, to be written now."""
        return self._open.pop(trace, None)

    def finish(self, run: Run, event: AttemptEnded, outcome: str, failure: Failure | None) -> SpanContext | None:
        """Write an attempt's span; answers with its context, None where there is none after all."""
        ctx, span = run.ctx, run.span
        if run.laned and failure is None and self._lane is not None:
            self._write_to_lane(self._lane, run, event, outcome)
            return None  # nothing hangs below a success
        if span is None:
            creation = parse(ctx.traceparent) if run.parent is not None else None
            span = self._start(ctx, (run.trace_id, run.span_id), creation, run.start_ns, forced=True)
            if span is None:
                return None
            if not run.laned:
                span.set_attribute("rf_jobs.sampling.reason", "failure" if failure is not None else outcome)
        span.set_attributes(_facts(ctx, event, outcome))
        start_ms = round(ctx.started_at.timestamp() * 1000)
        span.add_event("created", None, round(ctx.dispatched_at.timestamp() * 1e9))
        span.add_event("enqueued", None, run.start_ns - round(ctx.wait * 1e9))
        span.add_event("fetched", None, min(start_ms * 1_000_000, run.start_ns))
        if failure is not None:
            self._writer.fail(span, failure)
            self._writer.record_exception(span, failure, run.end_ns)
        span.end(run.end_ns)
        return span.get_span_context()

    def _write_to_lane(self, lane: LaneSpans, run: Run, event: AttemptEnded, outcome: str) -> None:
        ctx = run.ctx
        lane.write(
            ctx, (run.trace_id, run.span_id),
            run.parent.span_id if run.parent is not None else 0, (run.start_ns, run.end_ns), event, outcome,
        )  # fmt: skip
        self._writer.recorded.value += 1

    def _forget(self, run: Run) -> None:
        if run.span is not None:
            run.span.end(run.end_ns)

    def close(self) -> None:
        """End what the store never answered for."""
        for run in self._open.values():
            self._forget(run)
        self._open.clear()


def _must_be_seen(ctx: JobContext, error: BaseException | None) -> bool:
    """Whether an attempt that was not sampled is recorded all the same: it failed, timed out or was stopped. Asking for
    another try after the last one is a failure."""
    if error is None:
        return ctx.cancelled
    return not isinstance(error, (Snooze, Discard, Retry)) or (isinstance(error, Retry) and ctx.is_final_attempt)


def _facts(ctx: JobContext, event: AttemptEnded, outcome: str) -> Attributes:
    return {
        "rf_jobs.job.outcome": outcome,
        "rf_jobs.job.max_attempts": ctx.max_attempts,
        "rf_jobs.job.queue_wait_ms": round(event.wait * 1000),
        "rf_jobs.worker.id": event.worker,
    }
