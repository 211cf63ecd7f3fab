"""Jobs in a process of their own: ``executor="process"``, and jobs that are suspected of killing their worker.

Children are fresh interpreters (no forked locks), serve one job at a time, are kept for the next and killed at a
timeout. Messages are JSON; what a child raised comes back as text, and so do its log lines, which the worker's own logging
writes, and its events, which the worker's own subscribers hear: what a job dispatches is counted wherever it runs. What
runs in the child is ``job_process_main``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from rf_jobs.model.context import JobContext
from rf_jobs.model.envelope import Envelope
from rf_jobs.model.events import Event, EventBus, kinds_of
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.control import Discard, Fail, Retry, Snooze
from rf_jobs.words.errors import ExecutionFailed, WorkerError
from rf_jobs.worker.attempt import Attempt
from rf_jobs.worker.desk import Reports
from rf_jobs.worker.reports import Progress

FRAME = struct.Struct(">I")
"""A message's length goes before it."""
MAX_SUSPECTS = 4


class Request(msgspec.Struct):
    """What a child needs to run an attempt."""

    module: str
    letter: Envelope
    ctx: dict[str, Any]
    """The rest of what makes a ``JobContext``, and its state."""
    trace: str
    """W3C traceparent of the attempt's span, '' where it is not recorded."""


class Setup(msgspec.Struct):
    """What a child is told first."""

    path: list[str]
    settings: Settings
    levels: dict[str, int]
    """Of the worker's loggers, '' being the root."""


class Extension(msgspec.Struct, tag="extend"):
    """The handler asks for more time, in seconds."""

    by: float


class Logged(msgspec.Struct, tag="log"):
    """A ``LogRecord``'s members, with the whole text as ``msg``."""

    record: dict[str, Any]


class Said(msgspec.Struct, tag="said"):
    """What the handler says of its job: a line for its log (JSON), or how far it is."""

    line: str = ""
    progress: Progress | None = None


class Told(msgspec.Struct, tag="told"):
    """What happened to jobs and queues by the handler's doing: an event's name and its members."""

    kind: str
    event: msgspec.Raw


class Reply(msgspec.Struct, tag="reply"):
    """How it went: ``verdict`` is returned, raised, Retry, Snooze, Discard or Fail."""

    verdict: str
    value: msgspec.Raw = msgspec.Raw(b"null")
    error_type: str = ""
    message: str = ""
    traceback: str = ""
    delay: float | None = None
    matches: list[str] = []


Frame = Reply | Extension | Logged | Said | Told
"""What a child may send."""
_KINDS = {kind.__name__: kind for kind in kinds_of(Event)}


class JobCrash(Exception):  # noqa: N818 (a fact about the child, not an error of the caller)
    """The child died under the job."""


class IsolatedFailure(ExecutionFailed):
    """What a handler raised in a child. ``matches``: which of the class's filters (retry_on, discard_on) it fits."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.message, error_type=reply.error_type, traceback=reply.traceback)
        self.matches = tuple(reply.matches)


class JobProcess:
    """One child process and the socket to it. ``start`` makes one."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, settings: Settings) -> JobProcess:
        """Start a fresh interpreter; it reads its first job as soon as it is up."""
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "rf_jobs.worker.job_process_main", str(theirs.fileno())]
        with theirs:
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)  # noqa: ASYNC220, S603
        reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 30)
        child = cls(process, reader, writer)
        child._send(msgspec.json.encode(Setup(sys.path, settings, _levels())))
        return child

    def _send(self, data: bytes) -> None:
        self._writer.write(FRAME.pack(len(data)) + data)

    async def ask(self, request: Request, ctx: JobContext, reports: Reports, bus: EventBus) -> Reply:
        """Run one job; what it says meanwhile is done here. Raises ``JobCrash``."""
        self._send(msgspec.json.encode(request))
        while not isinstance(frame := await self._receive(), Reply):
            if isinstance(frame, Extension):
                await ctx.extend(frame.by)
            elif isinstance(frame, Logged):
                _write(frame)
            elif isinstance(frame, Told):
                bus.emit(msgspec.json.decode(frame.event, type=_KINDS[frame.kind]))
            elif frame.progress is not None:
                reports.progress(ctx, frame.progress)
            else:
                reports.write(ctx, frame.line.encode())
        return frame

    async def _receive(self) -> Frame:
        try:
            (size,) = FRAME.unpack(await self._reader.readexactly(FRAME.size))
            frame: Frame = msgspec.json.decode(await self._reader.readexactly(size), type=Frame)
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, 5)
            raise JobCrash(f"its process died {_cause(self._process.returncode)}") from None
        return frame

    @property
    def alive(self) -> bool:
        """Whether it can take another job."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it at once."""
        self._writer.close()
        self._process.kill()
        self._process.wait()


class JobProcesses:
    """Children by need, at most ``limit``; idle ones are kept. ``close`` kills all."""

    def __init__(self, settings: Settings, limit: int, reports: Reports, bus: EventBus) -> None:
        self._settings = settings
        self._bus = bus
        self._reports = reports
        self._declared = asyncio.Semaphore(limit)
        self._suspects = asyncio.Semaphore(min(limit, MAX_SUSPECTS))
        self._idle: list[JobProcess] = []
        self._all: set[JobProcess] = set()

    async def run(self, attempt: Attempt, letter: Envelope) -> Any:
        """Run an attempt in a child and answer with what its handler returned; raises what it raised, as text."""
        entry, ctx = attempt.entry, attempt.ctx
        if entry is None or ctx is None:
            raise WorkerError("only an attempt that was opened can run in a child")
        if entry.type.__module__ == "__main__":
            raise WorkerError(
                f"{entry.name} is to run in a process of its own, but is defined in a script; move it to a module"
            )
        fields = {
            "job_id": ctx.id, "queue": ctx.queue, "attempt": ctx.attempt, "max_attempts": ctx.max_attempts,
            "started_ms": attempt.now_ms, "deadline_ms": round(ctx.deadline.timestamp() * 1000),
            "fencing_token": ctx.fencing_token, "token": ctx.token, "worker": ctx.worker,
            "previous_traceparent": ctx.previous_traceparent, "wait": ctx.wait, "state": ctx.state, "inputs": ctx.inputs,
        }  # fmt: skip
        request = Request(entry.type.__module__, letter, fields, ctx.trace)
        # After a crash hundreds of jobs may be suspects at once; they must not start hundreds of interpreters.
        async with self._declared if entry.options.executor == "process" else self._suspects:
            child = await self._take()
            kept = False
            try:
                reply = await child.ask(request, ctx, self._reports, self._bus)
                kept = True
            finally:
                if kept and child.alive:
                    self._idle.append(child)
                else:  # timed out, cancelled or dead
                    self._all.discard(child)
                    child.kill()
        return _result(reply)

    async def _take(self) -> JobProcess:
        while self._idle:
            child = self._idle.pop()
            if child.alive:
                return child
            self._all.discard(child)
        child = await JobProcess.start(self._settings)
        self._all.add(child)
        return child

    def close(self) -> None:
        """Kill all children."""
        for child in self._all:
            child.kill()
        self._all.clear()
        self._idle.clear()


def _levels() -> dict[str, int]:
    """Those that were set; the others follow from them."""
    loggers = {"": logging.getLogger(), **logging.getLogger().manager.loggerDict}
    return {name: known.level for name, known in loggers.items() if isinstance(known, logging.Logger) and known.level}


def _write(line: Logged) -> None:
    record = logging.makeLogRecord(line.record)
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


def _result(reply: Reply) -> Any:
    steer: dict[str, Callable[[], Exception]] = {
        "Retry": lambda: Retry(reply.message, delay=reply.delay),
        "Snooze": lambda: Snooze(reply.delay or 0, reply.message),
        "Discard": lambda: Discard(reply.message),
        "Fail": lambda: Fail(reply.message),
        "raised": lambda: IsolatedFailure(reply),
    }
    if reply.verdict in steer:
        error = steer[reply.verdict]()
        raise error
    return msgspec.json.decode(reply.value)


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"of {signal.Signals(-code).name}"
    return f"with exit code {code}"
