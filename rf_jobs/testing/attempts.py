"""Attempts without a server: the worker's own runner, with stand-ins for what surrounds it in a worker."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from rf_jobs.client.manager import QueueManager
from rf_jobs.core.transitions import AttemptEnd
from rf_jobs.model.context import JobContext
from rf_jobs.model.desk import Desk
from rf_jobs.model.envelope import Envelope
from rf_jobs.model.jobclass import registry
from rf_jobs.model.middleware import Handle, MiddlewareStack
from rf_jobs.store.shapes import Leased
from rf_jobs.words.errors import JobTimeout
from rf_jobs.words.timing import mono, now_ms
from rf_jobs.worker.attempt import Attempt
from rf_jobs.worker.plans import Defaults
from rf_jobs.worker.runner import Runner
from rf_jobs.worker.threads import Threads

T = TypeVar("T")
WORKER = "inline"


class Attempts:
    """Runs the attempts of one job, each to its end, under its timeout. ``raised`` is what the last one raised."""

    def __init__(self, manager: QueueManager, desk: Desk, threads: Threads) -> None:
        self._grace = manager.settings.worker.grace_seconds
        self._witness = _Witness(manager.middleware)
        self._caller = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self._attempt: Attempt | None = None
        self._runner = Runner(
            worker=WORKER, registry=registry, defaults=_defaults(manager), middleware=self._witness, bus=manager.bus,
            desk=desk, threads=threads, isolation=_NoIsolation(threads), on_start=self._started,
            is_ending=lambda: self._caller is not None and self._caller.cancelling() > 0, offload=manager.offload,
        )  # fmt: skip

    async def run(self, leased: Leased) -> AttemptEnd | None:
        """Run one; answers as ``Runner.perform`` does."""
        self._witness.raised = None
        attempt = self._attempt = Attempt(leased, 0, mono(), now_ms())
        # A task of its own, so that a timeout cancels the handler and not who dispatched.
        task = asyncio.create_task(self._perform(attempt), name="rf-jobs-inline")
        try:
            return await task
        finally:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    async def _perform(self, attempt: Attempt) -> AttemptEnd | None:
        attempt.slot = asyncio.current_task()
        return await self._runner.perform(attempt)

    @property
    def raised(self) -> BaseException | None:
        """What the handler raised in the last attempt; ``JobTimeout`` where that took too long."""
        attempt = self._attempt
        if attempt is not None and attempt.stop == "timeout":
            return JobTimeout(attempt.timeout)
        return self._witness.raised

    def extended(self, by: float) -> None:
        """The handler asked for more time."""
        if self._attempt is not None:
            self._attempt.deadline += by
            self._attempt.timeout += by

    def _started(self, attempt: Attempt) -> None:
        self._watch(attempt)

    def _watch(self, attempt: Attempt, grace: float = 0.0) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left = max(0.0, attempt.deadline + grace - mono())
        self._timer = asyncio.get_running_loop().call_later(left, self._overdue, attempt)

    def _overdue(self, attempt: Attempt) -> None:
        now = mono()
        if now < attempt.deadline:  # it was extended
            self._watch(attempt)
        elif not attempt.stop:
            attempt.interrupt("timeout")
            self._watch(attempt, self._grace)
        elif now < attempt.deadline + self._grace:
            self._watch(attempt, self._grace)
        else:
            attempt.give_up()


def _defaults(manager: QueueManager) -> Defaults:
    jobs, worker = manager.settings.jobs, manager.settings.worker
    return Defaults(
        jobs.max_attempts, jobs.backoff_seconds, worker.timeout_seconds or jobs.timeout_seconds,
        round(jobs.result_ttl_seconds * 1000), worker.max_crashes,
    )  # fmt: skip


class _Witness(MiddlewareStack):
    """The manager's middlewares, and outside of them one that sees the exception itself: an outcome holds its text."""

    def __init__(self, inner: MiddlewareStack) -> None:
        super().__init__()
        self._inner = inner
        self.raised: BaseException | None = None

    @property
    def wraps_runs(self) -> bool:
        return True

    async def run(self, ctx: JobContext, job: Any, handle: Handle) -> Any:
        try:
            return await self._inner.run(ctx, job, handle)
        except BaseException as error:
            self.raised = error
            raise


class _NoIsolation:
    """``executor="process"`` in this process: a test is no place to start interpreters."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads

    async def run(self, attempt: Attempt, letter: Envelope) -> Any:
        if attempt.entry is not None and attempt.entry.is_async:
            return await attempt.job.handle(attempt.ctx)
        value = await self._threads.run(lambda: attempt.job.handle(attempt.ctx))
        return await value if inspect.isawaitable(value) else value


class CallerThread(Threads):
    """Plain functions run in the thread that called ``.sync()`` and waits: what belongs to a thread, a database connection
    say, is there. ``serve`` runs them until a future is done."""

    def __init__(self) -> None:
        super().__init__(0)
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    async def run(self, function: Callable[[], Any]) -> Any:
        """Have the waiting thread call ``function``."""
        loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        context = contextvars.copy_context()

        def call() -> None:
            try:
                result, error = context.run(function), None
            except BaseException as raised:  # it belongs to whoever waits
                result, error = None, raised
            loop.call_soon_threadsafe(_settle, future, result, error)

        self._calls.put(call)
        return await future

    def serve(self, future: Future[T]) -> T:
        """Call what is asked for, and answer with the future's result."""
        future.add_done_callback(lambda _: self._calls.put(None))
        while (call := self._calls.get()) is not None:
            call()
        return future.result()


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):
        future.set_exception(RuntimeError("the handler raised StopIteration"))
    else:
        future.set_exception(error)


def on_a_loop(make: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
    """Run a coroutine on an event loop of its own, in a thread of its own, with this thread's context."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(asyncio.run(make()))
        except BaseException as error:  # it belongs to whoever waits
            future.set_exception(error)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), name="rf-jobs-inline", daemon=True).start()
    return future
