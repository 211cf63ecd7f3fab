"""What running jobs say: progress, log lines, and that they were told to stop; on its way to the store.

Handlers may say something thousands of times a second: it is collected, for all jobs of the worker, and sent with one call
at most ten times a second. The first word goes at once, and what is left when an attempt ends goes before its outcome.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from itertools import count
from typing import Any

import msgspec

from rf_jobs.core import transitions
from rf_jobs.core.lifecycle import Lifecycle
from rf_jobs.core.records import clip
from rf_jobs.model import codec
from rf_jobs.model.context import JobContext
from rf_jobs.store.shapes import Report
from rf_jobs.words.config_settings import JobsSettings
from rf_jobs.words.errors import RfJobsError
from rf_jobs.words.timing import now_ms

log = logging.getLogger("rf_jobs.worker")
PAUSE_SECONDS = 0.1
"""Between two calls, unless an attempt waits for its last words to be kept."""
PAUSE_AFTER_FAILURE_SECONDS = 1.0
PATIENCE_SECONDS = 2.0
MAX_REPORTS, MAX_BYTES = 500, 1_000_000
"""Of one call, as near as may be."""
MAX_MESSAGE, MAX_LINE_BYTES = 4_000, 16_000
Progress = tuple[float, float, str]


class Unsent:
    """What one attempt has said and the store does not have yet. Filled by any thread, emptied on the event loop."""

    __slots__ = ("lines", "numbers", "progress", "queued", "told", "waiter")

    def __init__(self, most: int) -> None:
        self.lines: deque[tuple[int, bytes]] = deque(maxlen=max(most, 1))
        """With their numbers; where they come too fast the oldest are dropped."""
        self.numbers = count(1)
        self.progress: Progress | None = None
        self.told = False
        self.queued = False
        self.waiter: asyncio.Future[None] | None = None

    @property
    def pending(self) -> bool:
        """Whether anything is left to send."""
        return bool(self.lines) or self.progress is not None or self.told

    def clear(self) -> None:
        """Forget it all."""
        self.lines.clear()
        self.progress, self.told = None, False


class Reporter:
    """Sends what contexts say. Its task lives while there is something to send; ``close`` drops what is left."""

    def __init__(self, lifecycle: Lifecycle, jobs: JobsSettings) -> None:
        self._lifecycle = lifecycle
        self._most = jobs.log_lines
        self._most_bytes = jobs.log_bytes
        self._loop = asyncio.get_running_loop()
        self._queue: deque[JobContext] = deque()
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._closed = False

    @property
    def keeps_lines(self) -> bool:
        """Whether log lines are kept at all."""
        return self._most > 0

    def write(self, ctx: JobContext, line: bytes) -> None:
        """Keep a line of the job's log. From any thread."""
        box = self._box(ctx)
        box.lines.append((next(box.numbers), line))
        self._mark(ctx, box)

    def progress(self, ctx: JobContext, progress: Progress) -> None:
        """Keep how far the job is. From any thread."""
        box = self._box(ctx)
        box.progress = progress
        self._mark(ctx, box)

    def acknowledge(self, ctx: JobContext) -> None:
        """The job was told to stop."""
        box = self._box(ctx)
        box.told = True
        self._mark(ctx, box)

    async def settle(self, ctx: JobContext) -> None:
        """Return when the store has all of it; or, where it can't be reached, after a while without."""
        box = ctx.unsent
        if box is None or not box.pending or self._closed:
            return
        box.waiter = self._loop.create_future()
        if not box.queued:
            box.queued = True
            self._enqueue(ctx)
        self._hurry.set()
        await box.waiter

    def close(self) -> None:
        """Send nothing more."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()

    def _box(self, ctx: JobContext) -> Unsent:
        box: Unsent | None = ctx.unsent
        if box is None:
            box = ctx.unsent = Unsent(self._most)
        return box

    def _mark(self, ctx: JobContext, box: Unsent) -> None:
        # Whoever empties the box takes the mark off first: what was put in before is seen, what comes after marks again.
        if not box.queued:
            box.queued = True
            try:
                self._loop.call_soon_threadsafe(self._enqueue, ctx)
            except RuntimeError:  # the loop is closed: a thread that was given up goes on talking
                box.clear()

    def _enqueue(self, ctx: JobContext) -> None:
        if self._closed:
            ctx.unsent.clear()
            return
        self._queue.append(ctx)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="rf-jobs-report", context=contextvars.Context())

    async def _run(self) -> None:
        while self._queue:
            self._hurry.clear()
            pause = await self._send()
            if self._queue and any(ctx.unsent.waiter is not None for ctx in self._queue):
                continue
            try:
                async with asyncio.timeout(pause):
                    await self._hurry.wait()
            except TimeoutError:
                pass

    async def _send(self) -> float:
        """Send as much as one call takes; answers with the pause that should follow."""
        taken: list[JobContext] = []
        reports: list[Report] = []
        progress: list[Progress | None] = []
        room = MAX_BYTES
        while self._queue and len(taken) < MAX_REPORTS and room > 0:
            ctx = self._queue.popleft()
            box: Unsent = ctx.unsent
            box.queued = False
            report, room = _report(ctx, box, room)
            taken.append(ctx)
            reports.append(report)
            progress.append(box.progress)
        step = transitions.report(self._lifecycle.store.commands, reports, taken, max(self._most, 1), self._most_bytes)
        try:
            replies = await self._lifecycle.apply(step, retry_for=PATIENCE_SECONDS)
        except RfJobsError as error:
            self._failed(taken, error)
            return PAUSE_AFTER_FAILURE_SECONDS
        self._failures = 0
        for ctx, report, sent, reply in zip(taken, reports, progress, replies, strict=True):
            self._sent(ctx, report, sent, held=reply >= 0)
        return PAUSE_SECONDS

    def _sent(self, ctx: JobContext, report: Report, progress: Progress | None, *, held: bool) -> None:
        box: Unsent = ctx.unsent
        if not held:
            box.clear()
        last = report.first + len(report.lines) - 1
        while box.lines and box.lines[0][0] <= last:
            box.lines.popleft()
        if box.progress is progress:
            box.progress = None
        if report.told:
            box.told = False
        self._go_on(ctx, box)

    def _go_on(self, ctx: JobContext, box: Unsent) -> None:
        if box.pending:
            if not box.queued:
                box.queued = True
                self._queue.append(ctx)
        elif box.waiter is not None:
            if not box.waiter.done():
                box.waiter.set_result(None)
            box.waiter = None

    def _failed(self, taken: list[JobContext], error: RfJobsError) -> None:
        """Try again later; but an attempt that is over must not wait for the news of it."""
        self._failures += 1
        if self._failures in (1, 10, 100):
            log.warning("the progress and the log lines of %d jobs were not kept: %s", len(taken), error)
        for ctx in taken:
            if ctx.unsent.waiter is not None:
                ctx.unsent.clear()
            self._go_on(ctx, ctx.unsent)


def _report(ctx: JobContext, box: Unsent, room: int) -> tuple[Report, int]:
    """As much of the box as there is room for, and the room that is left. The box stays as it is."""
    lines: list[bytes] = []
    first = 0
    for number, line in box.lines.copy():  # in one go: other threads may be adding
        if not lines:
            first = number
        elif room <= 0:
            break
        lines.append(line)
        room -= len(line)
    progress = b""
    if box.progress is not None:
        current, total, message = box.progress
        progress = codec.encode_value({"current": current, "total": total, "message": message}, "progress")
    return Report(ctx.id, ctx.token, ctx.queue, progress, first, tuple(lines), box.told), room - 100


def log_line(level: int, message: str, attempt: int, fields: dict[str, Any]) -> bytes:
    """A line of a job's log as it is kept. Whatever the fields hold, it fails nothing; what is too long is cut."""
    line: dict[str, Any] = {
        "at": now_ms(), "level": level, "message": clip(message, MAX_MESSAGE), "attempt": attempt,
    }  # fmt: skip
    if fields:
        line["fields"] = fields
    try:
        data = msgspec.json.encode(line, enc_hook=str)
    except Exception:  # a value's __str__, half characters: the user's values may fail at anything
        data = b""
    if not data or len(data) > MAX_LINE_BYTES:
        line["fields"] = {clip(name, 100): clip(_shown(value), 100) for name, value in list(fields.items())[:20]}
        data = msgspec.json.encode(line)
    return data


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as broken:  # likewise
        return f"(it could not be shown: {type(broken).__name__})"
