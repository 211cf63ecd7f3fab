"""What a ``process`` span of the fast lane holds: the same as the SDK's would, from templates."""

from __future__ import annotations

from collections.abc import Callable

from rf_jobs.model.context import JobContext
from rf_jobs.model.events import AttemptEnded
from rf_jobs.telemetry.lane import Lane, attribute, event, link, span
from rf_jobs.telemetry.spans import Attributes
from rf_jobs.telemetry.traceparent import parse

MAX_TEMPLATES = 2_000


class LaneSpans:
    """Encodes attempts and hands them to the lane."""

    def __init__(self, lane: Lane, static: Callable[[str, str, str], Attributes], *, links: bool) -> None:
        self._lane = lane
        self._static = static
        """Attributes that an operation, a queue and a class decide."""
        self._links = links
        self._templates: dict[tuple[str, str], bytes] = {}
        self._worker: tuple[str, bytes] = ("", b"")
        self._outcomes: dict[tuple[str, int, int], bytes] = {}

    def write(
        self, name: str, ctx: JobContext, ids: tuple[int, int], parent: int, times: tuple[int, int],
        ended: AttemptEnded, outcome: str,
    ) -> None:  # fmt: skip
        """One attempt. ``times``: start and end in ns."""
        template = self._template(ctx)
        if self._worker[0] != ended.worker:
            self._worker = (ended.worker, attribute("rf_jobs.worker.id", ended.worker))
        start_ns, end_ns = times
        talk = ctx.conversation
        job_id = ctx.id
        rest = [
            template,
            attribute("messaging.message.id", job_id),
            attribute("messaging.message.conversation_id", talk or job_id),
            self._facts(outcome, ctx.attempt, ctx.max_attempts),
            attribute("rf_jobs.job.queue_wait_ms", round(ended.wait * 1000)),
            self._worker[1],
            event("created", ctx.dispatched_ms * 1_000_000),
            event("enqueued", start_ns - round(ctx.wait * 1e9)),
            event("fetched", min(ctx.started_ms * 1_000_000, start_ns)),
        ]
        if self._links:
            rest += self._linked(ctx)
        self._lane.add(span(ids, parent, name, start_ns, end_ns, rest, ctx.tracestate if parent else ""))

    def _template(self, ctx: JobContext) -> bytes:
        key = (ctx.queue, ctx.job_class)
        template = self._templates.get(key)
        if template is None:
            static = self._static("process", ctx.queue, ctx.job_class)
            template = b"".join(attribute(name, value) for name, value in static.items())
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

    def _linked(self, ctx: JobContext) -> list[bytes]:
        found = []
        for text, kind in ((ctx.traceparent, "creation"), (ctx.previous_traceparent, "previous_attempt")):
            where = parse(text) if text else None
            if where is not None:
                facts = {"rf_jobs.link.kind": kind, "messaging.message.id": ctx.id}
                found.append(link(where.trace_id, where.span_id, facts, sampled=where.sampled))
        return found
