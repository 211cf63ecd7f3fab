"""Jobs in a process of their own: ``executor="process"``, and jobs that are suspected of killing their worker.

Children are started afresh (spawn, no forked locks), serve one job at a time, are kept for the next and killed at a
timeout. Messages are JSON; what a child raised comes back as text.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from rf_jobs.model.envelope import Envelope
from rf_jobs.model.jobclass import Registry
from rf_jobs.worker.attempt import Attempt
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.control import Discard, Fail, Retry, Snooze
from rf_jobs.words.errors import ExecutionFailed, WorkerError

log = logging.getLogger("rf_jobs.worker")


class Request(msgspec.Struct):
    """What a child needs to run an attempt."""

    module: str
    job: str
    ver: int
    args: msgspec.Raw
    ctx: dict[str, Any]
    crumbs: dict[str, str]
    """W3C trace context of the attempt's span, for the handler's own spans."""


class Reply(msgspec.Struct):
    """How it went: ``verdict`` is returned, raised, Retry, Snooze, Discard or Fail."""

    verdict: str
    value: msgspec.Raw = msgspec.Raw(b"null")
    error_type: str = ""
    message: str = ""
    traceback: str = ""
    delay: float | None = None
    matches: list[str] = []


class JobCrash(Exception):  # noqa: N818 (a fact about the child, not an error of the caller)
    """The child died under the job."""


class IsolatedFailure(ExecutionFailed):
    """What a handler raised in a child. ``matches``: which of the class's filters (retry_on, discard_on) it fits."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.message, error_type=reply.error_type, traceback=reply.traceback)
        self.matches = tuple(reply.matches)


class Child:
    """One child process and the pipe to it."""

    def __init__(self, settings: Settings, log_level: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        plain = msgspec.json.encode(settings)
        self._process = context.Process(target=serve, args=(theirs, plain, log_level, os.getpid()), daemon=True)
        self._process.start()
        theirs.close()

    async def ask(self, request: Request) -> Reply:
        """Run one job. Raises ``JobCrash``."""
        try:
            self._pipe.send_bytes(msgspec.json.encode(request))
            await _readable(self._pipe)
            return msgspec.json.decode(self._pipe.recv_bytes(), type=Reply)
        except (EOFError, OSError):
            await asyncio.to_thread(self._process.join, 5)
            raise JobCrash(f"its process died {_cause(self._process.exitcode)}") from None

    @property
    def alive(self) -> bool:
        """Whether it can take another job."""
        return self._process.is_alive()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.join(2)
        self._pipe.close()


class ChildProcesses:
    """Children by need, at most ``limit``; idle ones are kept. ``close`` kills all."""

    def __init__(self, settings: Settings, limit: int, registry: Registry) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(limit)
        self._registry = registry
        self._idle: list[Child] = []
        self._all: set[Child] = set()

    async def run(self, attempt: Attempt, letter: Envelope) -> Any:
        """Run an attempt in a child and answer with what its handler returned; raises what it raised, as text."""
        entry, ctx = attempt.entry, attempt.ctx
        if entry is None or ctx is None:
            raise WorkerError("only an attempt that was opened can run in a child")
        fields = {
            "job_id": ctx.id, "job_class": ctx.job_class, "queue": ctx.queue, "attempt": ctx.attempt,
            "max_attempts": ctx.max_attempts, "dispatched_ms": letter.at, "started_ms": attempt.now_ms,
            "deadline_ms": round(ctx.deadline.timestamp() * 1000), "fencing_token": ctx.fencing_token, "token": ctx.token,
            "worker": ctx.worker, "tags": list(ctx.tags), "traceparent": ctx.traceparent, "headers": ctx.headers,
            "state": ctx.state,
        }  # fmt: skip
        request = Request(entry.type.__module__, letter.job, letter.ver, letter.args, fields, {"tp": attempt.trace})
        async with self._slots:
            child = await self._take()
            kept = False
            try:
                reply = await child.ask(request)
                kept = True
            finally:
                if kept and child.alive:
                    self._idle.append(child)
                else:  # timed out, cancelled or dead
                    self._all.discard(child)
                    await asyncio.to_thread(child.kill)
        return _result(reply)

    async def _take(self) -> Child:
        while self._idle:
            child = self._idle.pop()
            if child.alive:
                return child
            self._all.discard(child)
        child = await asyncio.to_thread(Child, self._settings, logging.getLogger().getEffectiveLevel())
        self._all.add(child)
        return child

    def close(self) -> None:
        """Kill all children."""
        for child in self._all:
            child.kill()
        self._all.clear()
        self._idle.clear()


def _result(reply: Reply) -> Any:
    steer: dict[str, Callable[[], Exception]] = {
        "Retry": lambda: Retry(reply.message, delay=reply.delay),
        "Snooze": lambda: Snooze(reply.delay or 0, reply.message),
        "Discard": lambda: Discard(reply.message),
        "Fail": lambda: Fail(reply.message),
        "raised": lambda: IsolatedFailure(reply),
    }
    if reply.verdict in steer:
        raise steer[reply.verdict]()
    return msgspec.json.decode(reply.value)


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"of {signal.Signals(-code).name}"
    return f"with exit code {code}"


async def _readable(pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(pipe.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(pipe.fileno())


# --- in the child --------------------------------------------------------------------------------------------------


def die_with(parent: int) -> None:
    """Have the kernel end this process with its parent (Linux). Elsewhere the closed pipe does it, after the job."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def serve(pipe: Connection, settings: bytes, log_level: int, parent: int) -> None:
    """Run jobs that come through the pipe until it closes."""
    from rf_jobs.worker.isolated import Isolated  # noqa: PLC0415 (only a child needs it, and it imports this module)

    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=log_level)
    runner = Isolated(msgspec.json.decode(settings, type=Settings))
    while True:
        try:
            data = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        reply = runner.run(msgspec.json.decode(data, type=Request))
        pipe.send_bytes(msgspec.json.encode(reply))
