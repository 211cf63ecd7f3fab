"""From a job to the store: preparing drafts, and sending them together.

Concurrent dispatches coalesce: whatever is handed in while a round trip is in flight goes with the next one. There is
no timer, so a lone dispatch takes one round trip.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Sequence
from uuid import UUID

from rf_jobs.client.extra import options_of
from rf_jobs.client.pending import Choices
from rf_jobs.client.protection import Protection, too_large
from rf_jobs.core import transitions
from rf_jobs.core.lifecycle import Lifecycle
from rf_jobs.core.transitions import Dispatching
from rf_jobs.model import codec, envelope
from rf_jobs.model.envelope import WIRE_VERSION, Envelope, Headers
from rf_jobs.model.events import DispatchRejected, EventBus, JobDispatched
from rf_jobs.model.job import Job
from rf_jobs.model.middleware import MiddlewareStack
from rf_jobs.store.shapes import Draft
from rf_jobs.words import options as checks
from rf_jobs.words.config_settings import SecuritySettings
from rf_jobs.words.errors import PayloadTooLarge, RfJobsError
from rf_jobs.words.ids import new_id, queue_name
from rf_jobs.words.timing import mono, now_ms

import msgspec  # isort: skip

Said = tuple[str, str]
"""What the store says of a dispatch: code and detail, see enqueue.lua."""
NEW: Said = ("", "")
MAX_BATCH_JOBS = 500
MAX_BATCH_BYTES = 4 << 20
SPLIT_FROM_JOBS = 32
"""From so many on, a batch is cut in two that fly at once: the server works on one while this process makes the next."""


class Preparer:
    """Makes drafts out of jobs. Every check that needs no server is made here, before anything is sent."""

    def __init__(
        self, default_queue: str, max_payload_bytes: int, middleware: MiddlewareStack, bus: EventBus,
        protection: Protection | None = None, *, offloads: bool = False,
    ) -> None:  # fmt: skip
        self._default_queue = default_queue
        # What is offloaded later on may be larger.
        self._max_bytes = sys.maxsize if offloads else max_payload_bytes
        self._middleware = middleware
        self._bus = bus
        self._protection = protection or Protection(SecuritySettings())
        self._plain = self._protection.plain

    def prepare(self, job: Job, choices: Choices) -> Dispatching:
        """Raises ``SerializationError``, ``PayloadTooLarge``, ``MissingKey`` or ``InvalidOption``; says so on the bus."""
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
        extra = choices.extra
        payload = codec.encode_payload(job, entry)
        letter = Envelope(
            WIRE_VERSION,
            str(job_id),
            entry.name,
            queue,
            now,
            msgspec.Raw(payload),
            entry.version,
            int(priority),
            0 if not when else now + int(when) if when[0] == "+" else int(when),
            choices.max_attempts or 0,
            0 if choices.expires_ms is None else now + choices.expires_ms,
            list(tags),
        )
        options = b""
        if extra is not None or entry.asks:
            options = options_of(entry, job, payload, extra, self._protection.keyring)
            if extra is not None:
                letter.bat, letter.chn, letter.aft = extra.batch, extra.chain, len(extra.parents) + extra.last
                letter.sch, letter.tick = extra.schedule, extra.tick
                if extra.conversation:
                    letter.hdr = Headers(cv=extra.conversation)
        self._middleware.prepare(letter)
        as_it_is = self._plain and entry.sealing is None
        data = envelope.encode(letter) if as_it_is else self._protection.encode(letter, entry)
        if len(data) > self._max_bytes:
            raise PayloadTooLarge(too_large(entry.short_name, len(data), self._max_bytes))
        delay_ms = max(0, letter.due - now)
        event = JobDispatched(
            letter.id, queue, entry.name, "scheduled" if delay_ms else "ready", delay_ms,
            letter.pri, letter.hdr.tp if letter.hdr is not None else "", began,
        )  # fmt: skip
        valid = "" if choices.expires_ms is None else f"!{choices.expires_ms}"
        return Dispatching(job_id, Draft(letter.id, queue, letter.pri, when + valid, data, options), event)


def chunks(items: Sequence[Dispatching]) -> list[Sequence[Dispatching]]:
    """Cuts of a size that one script call should take."""
    result: list[Sequence[Dispatching]] = []
    start = size = 0
    for at, item in enumerate(items):
        if at > start and (
            at - start >= MAX_BATCH_JOBS or size + len(item.draft.data) + len(item.draft.options) > MAX_BATCH_BYTES
        ):
            result.append(items[start:at])
            start, size = at, 0
        size += len(item.draft.data) + len(item.draft.options)
    if start < len(items):
        result.append(items[start:])
    return result


class Coalescer:
    """Sends prepared dispatches. Starts a task when there is something to send, a second one when that is much, and ends
    them when there is nothing; whoever waits for a dispatch hears of its failure."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._waiting: list[tuple[Dispatching, asyncio.Future[Said]]] = []
        self._pumps: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop of the pumps, while there are any."""

    async def send(self, item: Dispatching) -> Said:
        """Send one; answers with what the store says of it. Raises ``BackendError``."""
        if self._loop is None:
            # Asked once a batch: up to Python 3.11 the question costs a system call.
            self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Said] = self._loop.create_future()
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

    async def send_all(self, items: Sequence[Dispatching]) -> list[Said]:
        """Send many, in as few round trips as their size allows; answers with what the store says of each."""
        all_said: list[Said] = []
        for chunk in chunks(items):
            said = await self._apply(chunk)
            all_said += [said.get(at, NEW) for at in range(len(chunk))]
        return all_said

    async def _apply(self, items: Sequence[Dispatching]) -> dict[int, Said]:
        try:
            return await self._lifecycle.apply(transitions.enqueue(self._lifecycle.store.commands, items))
        except RfJobsError as error:
            for item in items:
                self._lifecycle.bus.emit(transitions.rejected(item.event, type(error).__name__))
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

    async def _settle(self, items: Sequence[Dispatching], futures: list[asyncio.Future[Said]]) -> None:
        try:
            said = await self._apply(items)
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
                    future.set_result(said.get(at, NEW))
