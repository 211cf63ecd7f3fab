"""``JobContext``: what a handler knows about its job and can do with it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from datetime import datetime
from inspect import isawaitable
from math import isfinite
from typing import Any, ParamSpec, TypeVar, overload
from uuid import UUID

from rf_jobs.model.desk import Desk, Dispatcher
from rf_jobs.model.envelope import WIRE_VERSION, Envelope, Headers
from rf_jobs.model.facts import Facts
from rf_jobs.model.notes import Notes
from rf_jobs.words.errors import InvalidOption, WorkerError
from rf_jobs.words.ids import new_id
from rf_jobs.words.timing import Duration, from_ms, now_ms, seconds

log = logging.getLogger("rf_jobs.job")
MAX_STEP_NAME = 200
P = ParamSpec("P")
R = TypeVar("R")


class _Turn:
    """Awaited, it lets the event loop do other work once."""

    def __await__(self) -> Generator[None, None, None]:
        yield


_TURN = _Turn()


class JobContext(Facts):
    """One attempt at one job. Made by the worker; ``JobContext.fake()`` makes one for a unit test."""

    __slots__ = (
        "_cancelled",
        "_deadline_ms",
        "_desk",
        "_inputs",
        "_progress",
        "_state",
        "_steps",
        "_stopping",
        "attempt",
        "fencing_token",
        "max_attempts",
        "previous_traceparent",
        "queue",
        "started_ms",
        "token",
        "trace",
        "unsent",
        "wait",
        "worker",
    )  # fmt: skip

    def __init__(
        self, letter: Envelope, job_id: str, queue: str, attempt: int, max_attempts: int, started_ms: int,
        deadline_ms: int, fencing_token: int, token: str, worker: str, desk: Desk | None,
        previous_traceparent: str = "", wait: float = 0.0,
    ) -> None:  # fmt: skip
        # Made for every attempt: what the envelope says is read from it when it is asked for.
        self._letter = letter
        self._id = job_id
        self.queue = queue
        self.attempt = attempt
        """1 for the first try."""
        self.max_attempts = max_attempts
        self.started_ms = started_ms
        """When this attempt was leased: ms since 1970 by the server's clock."""
        self._deadline_ms = deadline_ms
        self.fencing_token = fencing_token
        """Grows with every lease of this job: hand it to a store that refuses smaller ones."""
        self.token = token
        self.worker = worker
        self._desk = desk
        self.previous_traceparent = previous_traceparent
        """W3C traceparent of the attempt before this one, if it was recorded."""
        self.wait = wait
        """Seconds from eligible (dispatched, or due) to the start of this attempt."""
        self.trace = ""
        """W3C traceparent of this attempt's span: set by a tracing middleware where it is, or will be, recorded."""
        self.unsent: Any = None
        """What the desk has not delivered yet; None where the job never said anything."""
        self._cancelled = False
        self._stopping = False
        self._progress: tuple[float, float] = (0, 0)
        self._state: Any = None
        self._inputs: dict[str, Any] | None = None
        self._steps: tuple[dict[str, Any], set[str]] | None = None

    @property
    def is_final_attempt(self) -> bool:
        """Whether the job is buried if this attempt fails."""
        return self.attempt >= self.max_attempts

    @property
    def started_at(self) -> datetime:
        """When this attempt was leased (aware, UTC; the server's clock)."""
        return from_ms(self.started_ms)

    @property
    def deadline(self) -> datetime:
        """When this attempt times out (aware, UTC)."""
        return from_ms(self._deadline_ms)

    @property
    def cancelled(self) -> bool:
        """Whether the job should stop: it was cancelled, timed out, or its lease is lost. Threads have to ask."""
        return self._cancelled

    @property
    def stopping(self) -> bool:
        """Whether the worker is about to stop, or the job ``cancelled``: who can go on later saves where it is, and raises
        ``Snooze(0)``. An ``IterableJob`` does."""
        return self._stopping or self._cancelled

    @property
    def batch(self) -> Any:
        """The batch that the job belongs to, itself or by its chain, or that it is a callback of: a ``BatchHandle``. None where
        there is none."""
        return self.workflow(UUID(self._letter.bat)) if self._letter.bat else None

    @property
    def chain(self) -> Any:
        """The chain that the job is a step of: a ``ChainHandle``, which takes further steps. None where it is none."""
        return self.manager.chain(self._letter.chn, self._id, self._letter.bat) if self._letter.chn else None

    def workflow(self, group: UUID) -> Any:
        """A handle on any batch or chain."""
        return self.manager.batch(group)

    @property
    def inputs(self) -> dict[str, Any]:
        """What the jobs that it waited for returned, by their ids; without those that returned None."""
        return self._inputs or {}

    @property
    def previous(self) -> Any:
        """What the one job that it waited for returned, in a chain the step before; None where that was nothing. Of several, a
        list; ``inputs`` says whose is which."""
        values = list(self.inputs.values())
        return values[0] if len(values) == 1 and self._letter.aft <= 1 else values or None

    async def slow_down(self, by: Duration) -> None:
        """Let no job of this class start anywhere for so long: for a handler that was told to wait (a 429). This attempt goes
        on; raise ``Retry`` to have it tried again."""
        await self.manager.pause_class(self.job_class, by)

    @property
    def manager(self) -> Dispatcher:
        """The manager that the worker uses, for dispatching more jobs."""
        if self._desk is None or self._desk.manager is None:
            raise WorkerError("this context has no manager; pass JobContext.fake(manager=...)")
        return self._desk.manager

    @property
    def state(self) -> Any:
        """What the last ``checkpoint`` saved, in this attempt or an earlier one; None where there was none."""
        return self._state

    def log(self, message: str, /, level: int = logging.INFO, **fields: Any) -> None:
        """Write a line, which is kept with the job for ``manager.job_logs``, and goes through ``logging`` (logger
        ``rf_jobs.job``), with the job's fields beside it: ``rf_job`` and ``rf_fields`` of the record, and ``trace_id`` and
        ``span_id`` of the attempt where it is traced. Lines below INFO are kept only where that logger writes them."""
        enabled = log.isEnabledFor(level)
        if enabled or level >= logging.INFO:
            self.keep_line(level, message, fields)
        if enabled:
            extra: dict[str, Any] = {"rf_job": self.log_fields(), "rf_fields": fields}
            if self.trace:
                extra["trace_id"], extra["span_id"] = self.trace[3:35], self.trace[36:52]
            log.log(level, message, extra=extra)

    def keep_line(self, level: int, message: str, fields: dict[str, Any]) -> None:
        """Keep a line with the job, and do nothing else with it."""
        if self._desk is not None:
            self._desk.write(self, level, message, fields)

    def log_fields(self) -> dict[str, Any]:
        """The fields that identify this attempt in logs."""
        return {
            "job_id": self._id,
            "job_class": self.job_class,
            "queue": self.queue,
            "attempt": self.attempt,
            "worker": self.worker,
        }

    def progress(self, current: float, total: float, message: str = "") -> Awaitable[None]:
        """Say how far the job is: ``current`` of ``total``, kept with the job for ``manager.job_progress``.

        It costs no round trip: of calls in quick succession the newest is sent, the last one before the job's outcome.
        Progress is news, not state: where the lease is lost, or the server away, it is dropped. A handler that is a plain
        function calls it without ``await``. Raises ``InvalidOption`` for what is no finite number.
        """
        for name, number in (("current", current), ("total", total)):
            if not isinstance(number, (int, float)) or not isfinite(number):
                raise InvalidOption(f"progress: {name} is {number!r}; give a finite number")
        self._progress = (current, total)
        if self._desk is not None:
            self._desk.tell_progress(self, current, total, message)
        return _TURN

    def advance(self, by: float = 1, message: str = "") -> Awaitable[None]:
        """Add to what the last ``progress`` of this attempt said; else as that."""
        return self.progress(self._progress[0] + by, self._progress[1], message)

    async def checkpoint(self, state: Any) -> None:
        """Save a cursor (JSON) that a later attempt finds in ``state``.

        Raises ``StaleLease`` where the lease is lost: another worker may have the job by now.
        """
        if self._desk is not None:
            await self._desk.keep_checkpoint(self, state)
        self._state = state

    @overload
    async def step(self, name: str, function: Callable[P, Awaitable[R]], *args: P.args, **options: P.kwargs) -> R: ...
    @overload
    async def step(self, name: str, function: Callable[P, R], *args: P.args, **options: P.kwargs) -> R: ...
    async def step(self, name: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Do something once, however often the job runs: the answer of ``function(*args, **options)``, a coroutine function
        or a plain one, is kept under ``name``, and a later attempt gets it without calling. The answer is plain JSON data,
        also the first time. Dying between the call and the keeping repeats the step: it is done at least once.

        Raises ``InvalidOption`` for a name that is empty, longer than 200 characters, or was used before in this attempt;
        ``SerializationError`` for an answer that is no JSON; ``StaleLease``; and what ``function`` raises.
        """
        if not isinstance(name, str) or not 0 < len(name) <= MAX_STEP_NAME:
            raise InvalidOption(f"step: the name is {name!r}; give a string of 1 to {MAX_STEP_NAME} characters")
        if self._steps is None:
            self._steps = ({} if self._desk is None else await self._desk.load_steps(self), set())
        done, used = self._steps
        if name in used:
            raise InvalidOption(f"step {name!r} was done before in this attempt; give each step a name of its own")
        if name not in done:
            answer = function(*args, **options)
            value = await answer if isawaitable(answer) else answer
            done[name] = value if self._desk is None else await self._desk.keep_step(self, name, value)
        used.add(name)
        return done[name]

    async def extend(self, by: Duration) -> None:
        """Put the deadline of this attempt ``by`` seconds further away."""
        more = seconds(by, "extension")
        self._deadline_ms += round(more * 1000)
        if self._desk is not None:
            self._desk.extend(self, more)

    def request_stop(self) -> None:
        """Make ``cancelled`` true; the worker calls it before it cancels the handler."""
        self._cancelled = True

    def prepare_to_stop(self) -> None:
        """Make ``stopping`` true; the worker calls it when it is told to stop."""
        self._stopping = True

    def restore(self, state: Any, inputs: dict[str, Any] | None = None) -> None:
        """Give the context the state of an earlier attempt, and what the jobs before it returned."""
        self._state = state
        self._inputs = inputs

    @classmethod
    def fake(
        cls,
        *,
        job_id: UUID | None = None,
        queue: str = "default",
        attempt: int = 1,
        max_attempts: int = 3,
        timeout: float = 60,
        state: Any = None,
        manager: Dispatcher | None = None,
        headers: dict[str, str] | None = None,
        job_class: str = "fake",
    ) -> FakeContext:
        """A context for unit tests, without a server; its ``notes`` tell what the handler did with it. ``state`` is what an
        earlier attempt saved."""
        now = now_ms()
        key = str(job_id or new_id())
        letter = Envelope(WIRE_VERSION, key, job_class, queue, now, hdr=Headers(bg=headers) if headers else None)
        notes = Notes(manager)
        deadline = now + round(timeout * 1000)
        ctx = FakeContext(letter, key, queue, attempt, max_attempts, now, deadline, now, "fake", "fake", notes)
        ctx.notes = notes
        ctx.restore(state)
        return ctx


class FakeContext(JobContext):
    """What ``JobContext.fake()`` makes: ``notes`` has what the handler logged, told, saved and asked for."""

    __slots__ = ("notes",)
    notes: Notes


running: ContextVar[JobContext | None] = ContextVar("rf_jobs_running", default=None)
"""The attempt whose handler is running here; set only where ``logging`` is captured."""
