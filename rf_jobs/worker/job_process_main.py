"""What a child process does with one job."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import os
import queue
import secrets
import signal
import socket
import sys
import threading
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import msgspec

from rf_jobs.client.configured import middleware_of
from rf_jobs.client.manager import QueueManager
from rf_jobs.client.queue import configure
from rf_jobs.model import codec
from rf_jobs.model.context import JobContext
from rf_jobs.model.envelope import LINKED, Envelope, Headers
from rf_jobs.model.events import Event, EventBus, JobDispatched
from rf_jobs.model.jobclass import JobClass, registry
from rf_jobs.model.middleware import Handle, Middleware, MiddlewareStack
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.control import Retry, Snooze, Steer
from rf_jobs.words.timing import mono
from rf_jobs.worker.desk import StoreDesk
from rf_jobs.worker.job_process import FRAME, Extension, Frame, Logged, Reply, Request, Said, Setup, Told
from rf_jobs.worker.outcome import describe
from rf_jobs.worker.reports import PAUSE_SECONDS, Progress


class Wire:
    """Frames to the worker, from any thread; not from a process that a handler forked, which would garble them."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._owner = os.getpid()

    @property
    def is_ours(self) -> bool:
        """Whether this is the process that the worker started."""
        return os.getpid() == self._owner

    def send(self, frame: Frame) -> None:
        """Send one whole."""
        data = msgspec.json.encode(frame, enc_hook=str)
        if self.is_ours:
            with self._lock:
                self._connection.sendall(FRAME.pack(len(data)) + data)


class _Forwarder(logging.Handler):
    """Has the worker's logging write what is logged here, with all its fields."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def emit(self, record: logging.LogRecord) -> None:
        if not self._wire.is_ours:
            if logging.lastResort is not None:
                logging.lastResort.handle(record)
            return
        try:
            text = self.format(record).encode("utf-8", "replace").decode()  # the traceback is in it
            known = {name: value for name, value in vars(record).items() if name not in _TOLD_AS_TEXT}
            self._wire.send(Logged({**known, "msg": text}))
        except Exception:
            self.handleError(record)


class WireReports:
    """Sends what the handler says to the worker, which keeps it; of progress no more than is worth sending."""

    def __init__(self, wire: Wire, log_lines: int) -> None:
        self._wire = wire
        self.keeps_lines = log_lines > 0
        self._sent = -PAUSE_SECONDS
        self._newest: Progress | None = None

    def write(self, ctx: JobContext, line: bytes) -> None:
        """Pass a line on."""
        self._wire.send(Said(line.decode()))

    def progress(self, ctx: JobContext, progress: Progress) -> None:
        """Pass it on, or keep it until it is superseded, or the handler ends."""
        self._newest = progress
        if mono() - self._sent >= PAUSE_SECONDS:
            self._send()

    async def settle(self, ctx: JobContext) -> None:
        """Pass on what was kept."""
        self._send()

    def _send(self) -> None:
        newest, self._newest = self._newest, None
        if newest is not None:
            self._sent = mono()
            self._wire.send(Said(progress=newest))


_TOLD_AS_TEXT = ("msg", "args", "message", "exc_info", "exc_text", "stack_info")


class Lineage(Middleware):
    """Tells jobs that are dispatched by a job where they come from: they share its conversation, and their traces follow from
    its attempt's. The spans of these dispatches are the worker's to write."""

    def __init__(self) -> None:
        self.ctx: JobContext | None = None
        """Of the job that runs."""
        self._in_batch: ContextVar[bool] = ContextVar("rf_jobs_in_batch", default=False)
        self._made: set[str] = set()
        """Contexts that were made here, until their jobs are in the store."""

    def on_dispatch(self, envelope: Envelope, headers: Headers) -> None:
        """Unless somebody has said otherwise."""
        if self.ctx is None:
            return
        headers.cv = headers.cv or self.ctx.conversation or self.ctx.id
        if headers.tp or not self.ctx.trace:
            return
        trace, many = self.ctx.trace, self._in_batch.get()
        headers.ts = headers.ts or (LINKED if many or envelope.due else "")
        headers.tp = trace if many else f"{trace[:36]}{secrets.token_hex(8)}{trace[52:]}"
        if not many:
            self._made.add(headers.tp)

    async def around_batch(self, count: int, send: Handle) -> Any:
        """Its jobs come from the attempt itself."""
        token = self._in_batch.set(True)
        try:
            return await send()
        finally:
            self._in_batch.reset(token)

    def owns(self, event: JobDispatched) -> bool:
        """Whether the context of this dispatch was made here."""
        known = event.traceparent in self._made
        self._made.discard(event.traceparent)
        return known


class Isolated:
    """Runs requests, one after the other, each with a manager that connects if it is used. All on one event loop: what a
    job's module keeps, a client say, is bound to the loop that it was made in."""

    def __init__(self, settings: Settings, wire: Wire) -> None:
        self._settings = settings
        self._wire = wire
        self._runner = asyncio.Runner()
        self._lineage = Lineage()
        self._middleware = MiddlewareStack([*middleware_of(settings.jobs), self._lineage])
        self._bus = EventBus()
        self._bus.subscribe(Event, self._tell)
        configure(settings, middleware=self._middleware, bus=self._bus)

    def run(self, request: Request) -> Reply:
        """Never raises: whatever the handler does becomes a reply."""
        entry: JobClass | None = None
        try:
            importlib.import_module(request.module)  # the parent's class came from there; payloads have no say in it
            letter = request.letter
            entry = registry.get(letter.job)
            job = codec.decode_payload(entry, letter.args, letter.ver)
            value = self._runner.run(self._call(job, request))
            return Reply("returned", value=msgspec.Raw(codec.encode_value(value, "the result")))
        except BaseException as error:  # SystemExit too is only the job's
            return _describe(error, entry)

    async def _call(self, job: Any, request: Request) -> Any:
        fields = dict(request.ctx)
        state, inputs = fields.pop("state"), fields.pop("inputs")
        reports = WireReports(self._wire, self._settings.jobs.log_lines)
        manager = QueueManager(self._settings, middleware=self._middleware, bus=self._bus)
        async with aclosing(manager):  # it connects only when it is used
            ctx = JobContext(request.letter, **fields, desk=StoreDesk(manager, reports, self._extend))
            ctx.restore(state, inputs)
            ctx.trace = request.trace
            self._lineage.ctx = ctx
            try:
                value = job.handle(ctx)
                return await value if inspect.isawaitable(value) else value
            finally:
                await reports.settle(ctx)

    def _tell(self, event: Event) -> None:
        if isinstance(event, JobDispatched):
            event.elsewhere = self._lineage.owns(event)
        self._wire.send(Told(type(event).__name__, msgspec.Raw(msgspec.json.encode(event))))

    def _extend(self, _: JobContext, by: float) -> None:
        self._wire.send(Extension(by))


def _describe(error: BaseException, entry: JobClass | None) -> Reply:
    kind, message, trace = describe(error)
    delay = error.delay if isinstance(error, (Retry, Snooze)) else None
    verdict = type(error).__name__ if isinstance(error, Steer) else "raised"
    filters = {"retry_on": entry.options.retry_on, "discard_on": entry.options.discard_on} if entry else {}
    matches = [name for name, kinds in filters.items() if kinds and isinstance(error, kinds)]
    return Reply(verdict, error_type=kind, message=message, traceback=trace, delay=delay, matches=matches)


def _read(connection: socket.socket, requests: queue.SimpleQueue[bytes]) -> None:
    """Read messages in a thread; when the worker is gone so is this process, whatever it does."""
    stream = connection.makefile("rb")
    while True:
        head = stream.read(FRAME.size)
        data = stream.read(FRAME.unpack(head)[0]) if len(head) == FRAME.size else b""
        if not data:
            os._exit(1)
        requests.put(data)


def main() -> None:
    """Serve the worker that started this process: ``python -m rf_jobs.worker.job_process_main FD``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, requests), name="rf-jobs-orders", daemon=True).start()
    setup = msgspec.json.decode(requests.get(), type=Setup)
    sys.path[:] = setup.path
    wire = Wire(connection)
    logging.getLogger().addHandler(_Forwarder(wire))
    for name, level in setup.levels.items():
        logging.getLogger(name).setLevel(level)
    isolated = Isolated(setup.settings, wire)
    while True:
        reply = isolated.run(msgspec.json.decode(requests.get(), type=Request))
        if not wire.is_ours:
            os._exit(0)  # a handler forked, and its child came back here: the answer is the parent's to give
        wire.send(reply)


if __name__ == "__main__":
    main()
