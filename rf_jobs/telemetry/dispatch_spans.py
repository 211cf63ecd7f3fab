"""The ``send`` spans: one for each dispatch, one for each ``dispatch_many``. Their context is the job's creation context."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from opentelemetry.trace import Span, SpanContext, SpanKind

from rf_jobs.model.envelope import LINKED, Envelope, Headers
from rf_jobs.model.events import DispatchRejected, JobDeduplicated, JobDispatched, JobOutboxed
from rf_jobs.telemetry.lookup import Found, Lookup
from rf_jobs.telemetry.spans import Failure, SpanWriter, ambient, link_to
from rf_jobs.telemetry.traceparent import MAX_STATE, is_sampled, parse, text_of
from rf_jobs.words.timing import mono

MAX_OPEN = 10_000

Send = Callable[[], Awaitable[Any]]

conversation: ContextVar[str] = ContextVar("rf_jobs_conversation", default="")
"""What jobs that are dispatched from inside a handler share with its job."""


class _Batch:
    """One ``dispatch_many`` under way."""

    __slots__ = ("classes", "count", "ids", "parent", "queues", "span", "start_ns", "state", "traceparent")

    def __init__(self, count: int, parent: SpanContext | None, ids: tuple[int, int]) -> None:
        self.count = count
        self.parent = parent
        self.ids = ids
        self.span: Span | None = None
        self.start_ns = time.time_ns()
        self.traceparent = text_of(*ids, 0)
        self.state = _state(parent, linked=True)
        self.queues: set[str] = set()
        self.classes: set[str] = set()


_batch: ContextVar[_Batch | None] = ContextVar("rf_jobs_batch", default=None)


class DispatchSpans:
    """Opens a span when a dispatch is prepared, ends it when the store has answered."""

    def __init__(self, writer: SpanWriter, lookup: Lookup) -> None:
        self._writer = writer
        self._lookup = lookup
        self._open: dict[str, Span] = {}

    # --- one job -------------------------------------------------------------------------------------------------

    def prepare(self, letter: Envelope, headers: Headers) -> None:
        """Give the job its creation context, unless the user gave it one."""
        if not headers.cv:
            headers.cv = conversation.get()
        if headers.tp:
            return
        batch = _batch.get()
        if batch is not None:
            batch.queues.add(letter.queue)
            batch.classes.add(letter.job)
            headers.tp, headers.ts = batch.traceparent, batch.state
            return
        parent = ambient()
        trace_id, span_id, wanted = self._decide(parent)
        headers.ts = _state(parent, linked=bool(letter.due))
        if wanted:
            span = self._start(letter, headers, parent, (trace_id, span_id))
            if span.is_recording():
                self._keep(letter.id, span)
                own = span.get_span_context()
                headers.tp = text_of(own.trace_id, own.span_id, own.trace_flags)
                return
        self._writer.sampled_out.value += 1
        headers.tp = text_of(trace_id, span_id, 0)

    def _decide(self, parent: SpanContext | None) -> tuple[int, int, bool]:
        """Trace id, span id, and whether to record."""
        sampling, span_id = self._writer.sampling, random.getrandbits(64) or 1
        if parent is not None:
            return parent.trace_id, span_id, bool(parent.trace_flags.sampled) and sampling.take()
        trace_id = random.getrandbits(128) or 1
        return trace_id, span_id, sampling.keeps(trace_id) and sampling.take()

    def _start(self, letter: Envelope, headers: Headers, parent: SpanContext | None, ids: tuple[int, int]) -> Span:
        attributes = self._writer.attributes("send", letter.queue, letter.job, letter.id, headers.cv)
        name = self._writer.name("send", letter.queue, letter.job)
        return self._writer.start(name, SpanKind.PRODUCER, attributes=attributes, parent=parent, ids=ids)

    def _keep(self, job_id: str, span: Span) -> None:
        if len(self._open) >= MAX_OPEN:  # dispatches that were refused before they were sent leave theirs behind
            self._open.pop(next(iter(self._open))).end()
            self._writer.dropped.value += 1
        self._open[job_id] = span

    def dispatched(self, event: JobDispatched) -> None:
        """It is in the store."""
        if not is_sampled(event.traceparent):
            return
        span = self._open.pop(event.job_id, None)
        if span is None and event.elsewhere:
            span = self._late(event, ambient())
        if span is not None:
            span.set_attribute("rf_jobs.dispatch.result", "enqueued" if event.state == "ready" else event.state)
            span.set_attribute("rf_jobs.job.priority", event.priority)
            if event.delay_ms:
                span.set_attribute("rf_jobs.job.delay_ms", event.delay_ms)
            span.end()

    def outboxed(self, event: JobOutboxed) -> None:
        """It is in a table, and another process will dispatch it: nothing more is heard of it here."""
        span = self._open.pop(event.job_id, None)
        if span is not None:
            span.set_attribute("rf_jobs.dispatch.result", "outboxed")
            span.end()

    def deduplicated(self, event: JobDeduplicated) -> None:
        """It was there already: linked to the dispatch that brought it, unless that was this one, sent again."""
        span = self._open.pop(event.job_id, None)
        if span is None:
            return
        span.set_attribute("rf_jobs.dispatch.result", "duplicate")
        own, end_ns = span.get_span_context(), time.time_ns()

        def finish(found: Found) -> None:
            for link in link_to(found.traceparent, "creation", event.job_id):
                if link.context.span_id != own.span_id:
                    span.add_link(link.context, link.attributes)
            span.end(end_ns)

        self._lookup.ask(event.job_id, finish)

    def rejected(self, event: DispatchRejected) -> None:
        """It is not in the store: a failure, recorded in any case."""
        failure = Failure(event.reason, "", "")
        span = self._open.pop(event.job_id, None)
        if span is None:
            if _batch.get() is not None:
                return  # the batch's span says it
            where = parse(event.traceparent)
            # One that was refused before it had a context of its own is still its caller's.
            span = None if where is not None and where.sampled else self._late(event, None if where else ambient())
        if span is not None:
            span.set_attribute("rf_jobs.dispatch.result", "rejected")
            self._writer.fail(span, failure)
            span.end()

    def _late(self, event: DispatchRejected | JobDispatched, parent: SpanContext | None) -> Span:
        """A span that was not begun when its dispatch did."""
        where = parse(event.traceparent)
        attributes = self._writer.attributes("send", event.queue, event.job_class, event.job_id, conversation.get())
        return self._writer.start(
            self._writer.name("send", event.queue, event.job_class), SpanKind.PRODUCER, attributes=attributes,
            parent=parent, ids=None if where is None else (where.trace_id, where.span_id),
            start_ns=time.time_ns() - round((mono() - event.began) * 1e9), forced=True,
        )  # fmt: skip

    # --- many ----------------------------------------------------------------------------------------------------

    async def around_batch(self, count: int, send: Send) -> Any:
        """One span for all; every job carries its context."""
        parent = ambient()
        trace_id, span_id, wanted = self._decide(parent)
        batch = _Batch(count, parent, (trace_id, span_id))
        if wanted:
            batch.span = self._open_batch(batch, forced=False)
            if batch.span.is_recording():
                own = batch.span.get_span_context()
                batch.traceparent = text_of(own.trace_id, own.span_id, own.trace_flags)
            else:
                batch.span = None
        token = _batch.set(batch)
        try:
            result = await send()
        except Exception as error:
            span = batch.span or self._open_batch(batch, forced=True)
            self._writer.fail(span, Failure(_name(error), "", ""))
            self._close_batch(batch, span)
            raise
        else:
            if batch.span is not None:
                self._close_batch(batch, batch.span)
            else:
                self._writer.sampled_out.value += 1
            return result
        finally:
            _batch.reset(token)

    def _open_batch(self, batch: _Batch, *, forced: bool) -> Span:
        attributes = self._writer.attributes("send", "*")
        attributes["messaging.batch.message_count"] = batch.count
        return self._writer.start(
            "send *", SpanKind.PRODUCER, attributes=attributes, parent=batch.parent, ids=batch.ids,
            start_ns=batch.start_ns, forced=forced,
        )  # fmt: skip

    def _close_batch(self, batch: _Batch, span: Span) -> None:
        """Only now is it known where they went."""
        queue = "*"
        if len(batch.queues) == 1:
            (queue,) = batch.queues
            span.set_attribute("messaging.destination.name", queue)
        name = ""
        if len(batch.classes) == 1:
            (name,) = batch.classes
            span.set_attribute("rf_jobs.job.class", name)
        span.update_name(self._writer.name("send", queue, name))
        span.end()

    def close(self) -> None:
        """End what was never answered."""
        for span in self._open.values():
            span.end()
        self._open.clear()


def _state(parent: SpanContext | None, *, linked: bool) -> str:
    inherited = parent.trace_state.to_header() if parent is not None and parent.trace_state else ""
    members = [LINKED] if linked else []
    members += [each for each in inherited.split(",") if each and each != LINKED]
    state = ",".join(members)
    return state if len(state) <= MAX_STATE else ",".join(members[:1])


def _name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
