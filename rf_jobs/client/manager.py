"""``QueueManager``: everything that a program does with queues, short of running the jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self, TypeVar, overload
from uuid import UUID

from rf_jobs.client.configured import middleware_of
from rf_jobs.client.consumer import Consumer, LeasedJob
from rf_jobs.client.deadletters import DeadLetters
from rf_jobs.client.dispatcher import Dispatcher
from rf_jobs.client.dispatching import Coalescer, Preparer
from rf_jobs.client.extra import digest_for
from rf_jobs.client.handle import JobHandle
from rf_jobs.client.limits import Limits
from rf_jobs.client.offload import Offload
from rf_jobs.client.payloads import PayloadStore
from rf_jobs.client.pending import AsyncHandled, Choices, Handled, Pending
from rf_jobs.client.placing import Placer
from rf_jobs.client.portal import Counterpart
from rf_jobs.client.protection import Protection
from rf_jobs.client.schedules import Schedules
from rf_jobs.client.steering import Steering
from rf_jobs.client.ticking import JobMaker
from rf_jobs.client.waiting import Waiter
from rf_jobs.client.watching import Watcher
from rf_jobs.client.workflow.groups import Batch, Chain
from rf_jobs.client.workflow.handle import BatchHandle, ChainHandle, list_batches
from rf_jobs.client.workflow.records import BatchRecord
from rf_jobs.client.workflow.sending import GroupSender
from rf_jobs.core.inspector import Inspector
from rf_jobs.core.joblog import LogLine
from rf_jobs.core.lifecycle import Lifecycle
from rf_jobs.core.records import JobRecord, Progress
from rf_jobs.core.transitions import Dispatching
from rf_jobs.core.updates import JobUpdate
from rf_jobs.model.events import EventBus
from rf_jobs.model.job import Job
from rf_jobs.model.jobclass import registry
from rf_jobs.model.middleware import Middleware, MiddlewareStack
from rf_jobs.store import limit_calls
from rf_jobs.store.keys import shards_of
from rf_jobs.store.redis import AsyncStore
from rf_jobs.store.shapes import Retention
from rf_jobs.words import options as checks
from rf_jobs.words.config import load_settings
from rf_jobs.words.config_settings import JobsSettings, Settings
from rf_jobs.words.errors import ConfigError, InvalidOption
from rf_jobs.words.ids import job_id as as_job_id
from rf_jobs.words.ids import queue_name
from rf_jobs.words.timing import Duration, millis, seconds

R = TypeVar("R")
T = TypeVar("T")


def retention_of(jobs: JobsSettings) -> Retention:
    """The settings' retention as the store takes it."""
    return Retention(
        completed=(jobs.completed_keep, round(jobs.completed_keep_seconds * 1000)),
        dead=(jobs.dead_keep, round(jobs.dead_keep_seconds * 1000)),
        cancelled=(jobs.cancelled_keep, round(jobs.cancelled_keep_seconds * 1000)),
        expired=(jobs.cancelled_keep, round(jobs.cancelled_keep_seconds * 1000)),
    )


class QueueManager(Steering):
    """Dispatches jobs and looks after queues. ``target`` is a Redis URL or ``Settings``; without one the configuration
    file and the environment decide.

    Connects at first use; ``await QueueManager.connect(url)`` does it at once and says what is wrong with the server.
    Belongs to the event loop that first uses it; close it with ``aclose`` or ``async with``. All methods that ask the
    server raise ``BackendError`` when it can't be reached within ``retry_for`` seconds, refuses, or errs.
    """

    _store_type: ClassVar[type[AsyncStore]] = AsyncStore

    def __init__(
        self,
        target: str | Settings | None = None,
        *,
        namespace: str | None = None,
        middleware: Sequence[Middleware] | MiddlewareStack = (),
        bus: EventBus | None = None,
        retry_for: Duration = 5.0,
        payloads: PayloadStore | None = None,
    ) -> None:
        self.settings = settings_for(target, namespace)
        jobs = self.settings.jobs
        if bus is not None and not isinstance(bus, EventBus):
            raise ConfigError(f"bus is {bus!r}; give an EventBus")
        self.bus = bus or EventBus()
        self.middleware = stack_of(middleware)
        if self.middleware.is_empty:
            for layer in middleware_of(jobs):
                self.middleware.add(layer)
        patience = seconds(retry_for, "retry_for")
        self.store = self._store_type(
            jobs.redis_url, shards_of(jobs), allow_eviction=self.settings.security.allow_evicting_server,
            retry_for=patience,
        )  # fmt: skip
        self.lifecycle = Lifecycle(self.store, self.bus)
        self.protection = Protection(self.settings.security)
        self.offload = Offload(self.store, payloads, jobs, self.protection)
        self.inspector = Inspector(self.store, self.protection.keyring)
        self.retention = self.store.commands.retention = retention_of(jobs)
        self._preparer = Preparer(
            jobs.default_queue, jobs.max_payload_bytes, self.middleware, self.bus, self.protection,
            offloads=self.offload.above is not None,
        )  # fmt: skip
        self.placer = Placer(self.lifecycle, Coalescer(self.lifecycle))
        self._dispatcher = Dispatcher(self.lifecycle, self._preparer, self.middleware, self.offload, self.placer)
        self._waiter = Waiter(self.store, self.inspector)
        self._watcher = Watcher(self.store, self.inspector)
        keep_ms = round(jobs.batch_keep_seconds * 1000)
        self._groups = GroupSender(
            self.lifecycle, self._preparer, self.middleware, keep_ms, self.offload, self.placer
        )  # fmt: skip
        self.limits = Limits(self.store)
        self._dead = DeadLetters(self.lifecycle, self.inspector)
        self._consumer = Consumer(self.lifecycle, self.retention, self.settings, self.offload)
        maker = JobMaker(self._preparer, self.protection, self.middleware, jobs, registry)
        self.schedules = Schedules(self.lifecycle, maker, self.settings.scheduler.timezone, self.placer)
        """Recurring jobs, at run time."""
        twin = partial(
            QueueManager, self.settings, middleware=self.middleware, bus=self.bus, retry_for=patience, payloads=payloads
        )
        self._apart = Counterpart(self, twin)

    @classmethod
    async def connect(cls, target: str | Settings | None = None, **options: Any) -> Self:
        """A manager that has made contact. Raises ``BackendError`` for a server that is unreachable, refuses us, is too
        old, or may evict jobs; ``ConfigError`` for a bad URL or setting."""
        manager = cls(target, **options)
        try:
            await manager.store.connect()
        except BaseException:
            await manager.aclose()
            raise
        return manager

    async def aclose(self) -> None:
        """Close the connections. What was not awaited is not sent."""
        await asyncio.wrap_future(self._apart.close())
        await self._waiter.aclose()
        await self._watcher.aclose()
        await self.store.aclose()

    async def __aenter__(self) -> Self:
        try:
            await self.store.connect()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    # --- dispatch ----------------------------------------------------------------------------------------------

    @overload
    def dispatch(self, job: AsyncHandled[R]) -> Pending[R]: ...
    @overload
    def dispatch(self, job: Handled[R]) -> Pending[R]: ...
    def dispatch(self, job: Any) -> Pending[Any]:
        """A builder that dispatches ``job`` when it is awaited.

        Awaiting raises ``SerializationError`` for a payload that does not fit, ``PayloadTooLarge``, ``DuplicateJob``.
        """
        return Pending(self, job)

    @overload
    def dispatch_to(self, job: AsyncHandled[R], queue: str) -> Pending[R]: ...
    @overload
    def dispatch_to(self, job: Handled[R], queue: str) -> Pending[R]: ...
    def dispatch_to(self, job: Any, queue: str) -> Pending[Any]:
        """``dispatch(job).on_queue(queue)``."""
        return Pending[Any](self, job).on_queue(queue)

    @overload
    def dispatch_later(self, job: AsyncHandled[R], delay: Duration) -> Pending[R]: ...
    @overload
    def dispatch_later(self, job: Handled[R], delay: Duration) -> Pending[R]: ...
    def dispatch_later(self, job: Any, delay: Duration) -> Pending[Any]:
        """``dispatch(job).delay(delay)``."""
        return Pending[Any](self, job).delay(delay)

    async def dispatch_many(self, jobs: Iterable[Job | Pending[Any]]) -> list[UUID]:
        """Dispatch many jobs, in as few round trips as their size allows; answers with their ids in order.

        All are checked before the first is sent: one that doesn't fit, or whose id (``with_id``) another job has, refuses
        them all, with nothing enqueued. What only the store can tell (a unique lock, a dispatch limit, a parent that is not
        known, an id that another client takes in that moment) refuses that job alone: the error says which were enqueued. A ``BackendError`` in the middle may leave the first of them enqueued; sent again under the
        same ids they are not doubled.
        """
        asked = [
            job.take() if isinstance(job, Pending) else Pending[Any](self, job).take()
            for job in checks.several(jobs, "jobs")
        ]
        return await self._dispatcher.send_many(asked) if asked else []

    def prepare(self, job: Job, choices: Choices) -> Dispatching:
        """A dispatch that is to be sent later, by another process maybe; for outboxes. Needs no server. Raises
        ``SerializationError``, ``PayloadTooLarge``, ``MissingKey`` or ``InvalidOption``."""
        return self._preparer.prepare(job, choices)

    async def send(self, job: Job, choices: Choices) -> UUID:
        """Dispatch one job; what ``Pending`` calls."""
        return await self._dispatcher.send(job, choices)

    def send_blocking(self, job: Job, choices: Choices, timeout: float | None) -> UUID:
        """Dispatch from code without a loop, on the process's background loop, through a manager that belongs to it and
        has this one's middleware and bus; what ``Pending.sync`` calls."""
        return self._apart.call(lambda manager: manager.send(job, choices), timeout)

    # --- jobs --------------------------------------------------------------------------------------------------

    async def pop_batch(self, queue: str, count: int, *, lease: Duration = 60) -> list[LeasedJob]:
        """Lease up to ``count`` jobs for a hand-written consumer, for ``lease`` seconds; end each with ``complete``,
        ``retry`` or ``fail``. A job whose lease ran out is taken back by any worker on the queue, and by the next call
        of this; one whose envelope nobody can read is buried, one of a newer version parked, and neither is answered."""
        return await self._consumer.lease(queue_name(queue), count, millis(lease, "lease"))

    async def job(self, job_id: UUID | str) -> JobRecord:
        """All that is known of a job. Raises ``JobNotFound``."""
        return await self.inspector.job(as_job_id(job_id))

    def handle(self, job_id: UUID | str) -> JobHandle[Any]:
        """A handle on a job that was dispatched before."""
        return JobHandle(self, as_job_id(job_id))

    async def job_progress(self, job_id: UUID | str) -> Progress:
        """How far a job is. Raises ``JobNotFound``."""
        return await self.inspector.progress(as_job_id(job_id))

    async def job_logs(self, job_id: UUID | str, *, after: int = 0) -> list[LogLine]:
        """The lines that the job wrote with ``ctx.log``, over all attempts, as far as they are kept (``log_lines``,
        ``log_bytes``); only those with a number above ``after``. Raises ``JobNotFound``."""
        return await self.inspector.log(as_job_id(job_id), checks.at_least(after, 0, "after"))

    def watch(self, job_id: UUID | str) -> AsyncGenerator[JobUpdate]:
        """Follow a job: what is kept of it, then each change as it happens, until the job is over.

        Updates are ``StateChanged`` (the first and the last, and between), ``Progress``, ``LogLine``, ``AttemptError``
        for each attempt that failed, and ``Cancellation``. A reader who is slower than the job gets the newest progress
        and state, and all lines that are still kept; a lost connection loses nothing. Raises ``JobNotFound``, also where
        the job is removed meanwhile.
        """
        return self._watcher.watch(str(as_job_id(job_id)))

    async def wait(self, job_id: UUID | str, timeout: Duration | None = None) -> Any:
        """Wait until a job ends and answer with its result (None where its handler answers with None).

        Raises ``ExecutionFailed`` or ``JobTimeout`` for a dead letter, ``JobError`` for one that was cancelled or
        expired, ``ResultExpired``, ``JobNotFound``, and ``TimeoutError`` when ``timeout`` passes first.
        """
        limit = None if timeout is None else seconds(timeout, "timeout")
        return await self._waiter.result(str(as_job_id(job_id)), limit)

    async def unique_holder(self, pending: Pending[Any]) -> UUID | None:
        """Which job holds the unique lock that this dispatch would ask for; None where it is free. Sends nothing."""
        if not isinstance(pending, Pending):
            raise InvalidOption(
                f"unique_holder got {pending!r}; give a builder, such as manager.dispatch(job).unique_for(60)"
            )
        job, choices = pending.take()
        digest = digest_for(job, choices.extra, self.protection.keyring)
        holder = await self.store.run(limit_calls.lock_holder(self.store.commands, digest))
        return as_job_id(holder) if holder else None

    # --- batches and chains ------------------------------------------------------------------------------------

    async def send_group(self, group: Batch | Chain) -> UUID:
        """Dispatch a batch or a chain with all that is in it; what ``Batch.dispatch`` calls."""
        return await self._groups.send(group)

    def batch(self, batch_id: UUID | str) -> BatchHandle:
        """A batch, or a chain, that was dispatched before."""
        return BatchHandle(as_job_id(batch_id), self.lifecycle, self.inspector, self._groups, self._dead)

    def chain(self, chain_id: UUID | str, step: UUID | str, batch: str = "") -> ChainHandle:
        """The chain that the running job ``step`` belongs to; what ``ctx.chain`` calls."""
        return ChainHandle(
            as_job_id(chain_id),
            self.lifecycle,
            self.inspector,
            self._groups,
            self._dead,
            self.send,
            as_job_id(step),
            batch,
        )

    async def batches(self, offset: int = 0, limit: int = 50) -> list[BatchRecord]:
        """A page of the batches and chains that are known, the newest first."""
        checks.page(offset, limit)
        return await list_batches(self.store, offset, limit)


def settings_for(target: str | Settings | None, namespace: str | None = None) -> Settings:
    """Settings from what a caller gave: a URL, settings, or nothing."""
    if isinstance(target, Settings):
        return target if namespace is None else replace(target, jobs=replace(target.jobs, namespace=namespace))
    overrides: dict[str, Any] = {}
    if target is not None:
        overrides["jobs.redis_url"] = target
    if namespace is not None:
        overrides["jobs.namespace"] = namespace
    return load_settings(overrides=overrides).settings


def stack_of(middleware: Sequence[Middleware] | MiddlewareStack) -> MiddlewareStack:
    """The stack that was given, which may grow later and is shared, or one of these layers."""
    return middleware if isinstance(middleware, MiddlewareStack) else MiddlewareStack(middleware)
