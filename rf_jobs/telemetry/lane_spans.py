"""What a ``process`` span of the fast lane holds: the same as the SDK's would, from templates.

Nearly everything in a span has a fixed length: ids, times, names. So messages are encoded once with marks in their
place, and cut there.
"""

from __future__ import annotations

from collections.abc import Callable

from rf_jobs.model.context import JobContext
from rf_jobs.model.events import AttemptEnded
from rf_jobs.telemetry.lane import Lane, attribute, cut, event, link, named, span
from rf_jobs.telemetry.spans import Attributes
from rf_jobs.telemetry.traceparent import parse

MAX_TEMPLATES = 2_000
_ID = "?" * 36
_TRACE, _SPAN, _TIME = b"\xaa" * 16, b"\xbb" * 8, b"\xcc" * 8
_MESSAGE = cut(attribute("messaging.message.id", _ID), _ID.encode())[0]
_TALK = cut(attribute("messaging.message.conversation_id", _ID), _ID.encode())[0]
_CREATED, _ENQUEUED, _FETCHED = (
    cut(event(name, int.from_bytes(_TIME, "little")), _TIME) for name in ("created", "enqueued", "fetched")
)


def _link_parts(kind: str, *, sampled: bool) -> list[bytes]:
    facts = {"rf_jobs.link.kind": kind, "messaging.message.id": _ID}
    encoded = link(int.from_bytes(_TRACE, "big"), int.from_bytes(_SPAN, "big"), facts, sampled=sampled)
    return cut(encoded, _TRACE, _SPAN, _ID.encode())


_LINKS = {
    (kind, sampled): _link_parts(kind, sampled=sampled)
    for kind in ("creation", "previous_attempt")
    for sampled in (True, False)
}


class LaneSpans:
    """Encodes attempts and hands them to the lane."""

    def __init__(
        self, lane: Lane, name: Callable[[str, str, str], str], static: Callable[[str, str, str], Attributes], *, links: bool
    ) -> None:  # fmt: skip
        self._lane = lane
        self._name = name
        self._static = static
        """Attributes that an operation, a queue and a class decide, as they do the name."""
        self._links = links
        self._templates: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        self._worker: tuple[str, bytes] = ("", b"")
        self._outcomes: dict[tuple[str, int, int], bytes] = {}

    def write(
        self, ctx: JobContext, ids: tuple[int, int], parent: int, times: tuple[int, int], ended: AttemptEnded, outcome: str
    ) -> None:  # fmt: skip
        """One attempt. ``times``: start and end in ns."""
        title, static = self._template(ctx)
        if self._worker[0] != ended.worker:
            self._worker = (ended.worker, attribute("rf_jobs.worker.id", ended.worker))
        start_ns = times[0]
        job_id = ctx.id.encode()
        talk = ctx.conversation
        rest = [
            static,
            _MESSAGE + job_id,
            attribute("messaging.message.conversation_id", talk) if talk else _TALK + job_id,
            self._facts(outcome, ctx.attempt, ctx.max_attempts),
            attribute("rf_jobs.job.queue_wait_ms", round(ended.wait * 1000)),
            self._worker[1],
            (ctx.dispatched_ms * 1_000_000).to_bytes(8, "little").join(_CREATED),
            (start_ns - int(ctx.wait * 1e9)).to_bytes(8, "little").join(_ENQUEUED),
            min(ctx.started_ms * 1_000_000, start_ns).to_bytes(8, "little").join(_FETCHED),
        ]
        if self._links:
            if ctx.traceparent:
                rest.append(_linked("creation", ctx.traceparent, job_id))
            if ctx.previous_traceparent:
                rest.append(_linked("previous_attempt", ctx.previous_traceparent, job_id))
        self._lane.add(span(ids, parent, title, start_ns, times[1], rest, ctx.tracestate if parent else ""))

    def _template(self, ctx: JobContext) -> tuple[bytes, bytes]:
        key = (ctx.queue, ctx.job_class)
        template = self._templates.get(key)
        if template is None:
            static = self._static("process", ctx.queue, ctx.job_class)
            name = self._name("process", ctx.queue, ctx.job_class)
            template = (named(name), b"".join(attribute(fact, value) for fact, value in static.items()))
            if len(self._templates) < MAX_TEMPLATES:
                self._templates[key] = template
        return template

    def _facts(self, outcome: str, attempt: int, max_attempts: int) -> bytes:
        key = (outcome, attempt, max_attempts)
        facts = self._outcomes.get(key)
        if facts is None:
            facts = (
                attribute("rf_jobs.job.outcome", outcome)
                + attribute("rf_jobs.job.attempt", attempt)
                + attribute("rf_jobs.job.max_attempts", max_attempts)
            )
            if len(self._outcomes) < MAX_TEMPLATES:
                self._outcomes[key] = facts
        return facts


def _linked(kind: str, traceparent: str, job_id: bytes) -> bytes:
    where = parse(traceparent)
    if where is None:
        return b""
    head, middle, tail, flags = _LINKS[kind, where.sampled]
    return b"".join(
        (head, where.trace_id.to_bytes(16, "big"), middle, where.span_id.to_bytes(8, "big"), tail, job_id, flags)
    )
