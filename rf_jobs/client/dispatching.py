"""From a job to the store: preparing drafts, and sending them together.

Concurrent dispatches coalesce: whatever is handed in while a round trip is in flight goes with the next one. There is
no timer, so a lone dispatch takes one round trip.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence
from uuid import UUID

from rf_jobs.client.pending import Choices
from rf_jobs.core import transitions
from rf_jobs.core.lifecycle import Lifecycle
from rf_jobs.core.transitions import Dispatching
from rf_jobs.model import codec, envelope
from rf_jobs.model.envelope import WIRE_VERSION, Envelope
from rf_jobs.model.events import DispatchRejected, EventBus, JobDispatched
from rf_jobs.model.job import Job
from rf_jobs.model.middleware import MiddlewareStack
from rf_jobs.store.shapes import Draft
from rf_jobs.words import options as checks
from rf_jobs.words.errors import PayloadTooLarge, RfJobsError
from rf_jobs.words.ids import new_id, queue_name
from rf_jobs.words.timing import mono, now_ms

import msgspec  # isort: skip

MAX_BATCH_JOBS = 500
MAX_BATCH_BYTES = 4 << 20
SPLIT_FROM_JOBS = 32
"""From so many on, a batch is cut in two that fly at once: the server works on one while this process makes the next."""


class Preparer:
    """Makes drafts out of jobs. Every check that needs no server is made here, before anything is sent."""

    def __init__(self, default_queue: str, max_payload_bytes: int, middleware: MiddlewareStack, bus: EventBus) -> None:
        self._default_queue = default_queue
        self._max_bytes = max_payload_bytes
        self._middleware = middleware
        self._bus = bus

    def prepare(self, job: Job, choices: Choices) -> Dispatching:
        """Raises ``SerializationError``, ``PayloadTooLarge`` or ``InvalidOption``; says so on the bus."""
        began, job_id = mono(), choices.id or new_id()
        try:
            return self._prepare(job, choices, job_id, began)
        except RfJobsError as error:
            entry = job.__job_class__
            queue = choices.queue or entry.options.queue or self._default_queue
            self._bus.emit(DispatchRejected(queue, entry.name, type(error).__name__, str(job_id), began=began))
            raise

    def _prepare(self, job: Job, choices: Choices, job_id: UUID, began: float) -> Dispatching:
        entry = job.__job_class__
        dynamic = entry.dynamic
        queue = (
            choices.queue
            or (queue_name(job.queue()) if "queue" in dynamic else entry.options.queue)
            or self._default_queue
        )
        priority = choices.priority
        if priority is None:
            priority = checks.priority(job.priority()) if "priority" in dynamic else entry.options.priority
        tags = checks.tags(job.tags()) if "tags" in dynamic else entry.options.tags
        if choices.tags:
            tags = checks.tags((*tags, *choices.tags))
        now = now_ms()
        when = choices.when
        letter = Envelope(
            WIRE_VERSION,
            str(job_id),
            entry.name,
            queue,
            now,
            msgspec.Raw(codec.encode_payload(job, entry)),
            entry.version,
            int(priority),
            0 if not when else now + int(when) if when[0] == "+" else int(when),
            choices.max_attempts or 0,
            0 if choices.expires_ms is None else now + choices.expires_ms,
            list(tags),
        )
        self._middleware.prepare(letter)
        data = envelope.encode(letter)
        if len(data) > self._max_bytes:
            raise PayloadTooLarge(
                f"{entry.short_name} takes {len(data)} bytes, the limit (max_payload_bytes) is {self._max_bytes};"
                " keep large data elsewhere and dispatch a reference to it"
            )
        delay_ms = max(0, letter.due - now)
        event = JobDispatched(
            letter.id, queue, entry.name, "scheduled" if delay_ms else "ready", delay_ms,
            letter.pri, letter.hdr.tp if letter.hdr is not None else "", began,
        )  # fmt: skip
        valid = "" if choices.expires_ms is None else f"!{choices.expires_ms}"
        return Dispatching(job_id, Draft(letter.id, queue, letter.pri, when + valid, data), event)


def chunks(items: Sequence[Dispatching]) -> list[Sequence[Dispatching]]:
    """Cuts of a size that one script call should take."""
    result: list[Sequence[Dispatching]] = []
    start = size = 0
    for at, item in enumerate(items):
        if at > start and (at - start >= MAX_BATCH_JOBS or size + len(item.draft.data) > MAX_BATCH_BYTES):
            result.append(items[start:at])
            start, size = at, 0
        size += len(item.draft.data)
    if start < len(items):
        result.append(items[start:])
    return result


class Coalescer:
    """Sends prepared dispatches. Starts a task when there is something to send, a second one when that is much, and ends
    them when there is nothing; whoever waits for a dispatch hears of its failure."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._waiting: list[tuple[Dispatching, asyncio.Future[bool]]] = []
        self._pumps: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop of the pumps, while there are any."""

    async def send(self, item: Dispatching) -> bool:
        """Send one; answers whether it is new. Raises ``BackendError``."""
        if self._loop is None:
            # Asked once a batch: up to Python 3.11 the question costs a system call.
            self._loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = self._loop.create_future()
        self._waiting.append((item, future))
        if not self._pumps:
            self._start_pump()
        return await future

    def _start_pump(self) -> None:
        # An empty context: the task outlives its first caller, whose span must not swallow the others'.
        task = asyncio.create_task(self._run(), name="rf-jobs-dispatch", context=contextvars.Context())
        self._pumps.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, pump: asyncio.Task[None]) -> None:
        self._pumps.discard(pump)
        if pump.cancelled():  # the loop is ending
            for _, future in self._waiting:
                future.cancel()
            self._waiting.clear()
        if self._waiting and not self._pumps:  # handed in between its last look and its end
            self._start_pump()
        elif not self._pumps:
            self._loop = None

    async def send_all(self, items: Sequence[Dispatching]) -> list[bool]:
        """Send many, in as few round trips as their size allows; answers which are new."""
        fresh: list[bool] = []
        for chunk in chunks(items):
            known = set(await self._apply(chunk))
            fresh += [at not in known for at in range(len(chunk))]
        return fresh

    async def _apply(self, items: Sequence[Dispatching]) -> list[int]:
        try:
            return await self._lifecycle.apply(transitions.enqueue(self._lifecycle.store.commands, items))
        except RfJobsError as error:
            for item in items:
                event = item.event
                self._lifecycle.bus.emit(
                    DispatchRejected(
                        event.queue, event.job_class, type(error).__name__, event.job_id, event.traceparent, event.began
                    )
                )
            raise

    async def _run(self) -> None:
        while self._waiting:
            take = len(self._waiting)
            if take >= SPLIT_FROM_JOBS and len(self._pumps) == 1:
                take //= 2
                self._start_pump()
            batch, self._waiting = self._waiting[:take], self._waiting[take:]
            for chunk in chunks([item for item, _ in batch]):
                futures, batch = batch[: len(chunk)], batch[len(chunk) :]
                await self._settle(chunk, [future for _, future in futures])

    async def _settle(self, items: Sequence[Dispatching], futures: list[asyncio.Future[bool]]) -> None:
        try:
            known = set(await self._apply(items))
        except Exception as error:
            for future in futures:
                if not future.done():
                    future.set_exception(error)
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise
        else:
            for at, future in enumerate(futures):
                if not future.done():
                    future.set_result(at not in known)
