"""``Queue``: dispatching through the process's default manager. The only global of the package."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, overload
from uuid import UUID

from rf_jobs.client.handle import JobHandle
from rf_jobs.client.manager import QueueManager, settings_for, stack_of
from rf_jobs.client.pending import AsyncHandled, Choices, Handled, Pending
from rf_jobs.client.workflow.groups import JobGroup
from rf_jobs.model.events import EventBus
from rf_jobs.model.job import Job
from rf_jobs.model.middleware import Middleware, MiddlewareStack
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.ids import queue_name

R = TypeVar("R")


class _Default:
    """What ``configure`` set, and the managers made from it: one for each event loop, since a connection belongs to one."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.middleware = MiddlewareStack()
        self.bus = EventBus()
        self.given: QueueManager | None = None
        self.stand_in: QueueManager | None = None
        self.blocking: QueueManager | None = None
        """For ``.sync()``: it makes no connection here, its counterpart on the background loop does."""
        self.configured = False
        self.managers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, QueueManager] = weakref.WeakKeyDictionary()

    def current_settings(self) -> Settings:
        if self.settings is None:
            self.settings = settings_for(None)
        return self.settings

    def manager(self) -> QueueManager:
        given = self.stand_in or self.given
        if given is not None:
            return given
        loop = asyncio.get_running_loop()
        manager = self.managers.get(loop)
        if manager is None or manager.store.closed:
            manager = self.managers[loop] = self.make()
        return manager

    def make(self) -> QueueManager:
        return QueueManager(self.current_settings(), middleware=self.middleware, bus=self.bus)

    def without_loop(self) -> QueueManager:
        manager = self.stand_in or self.given or self.blocking
        if manager is None:
            manager = self.blocking = self.make()
        return manager

    # What Pending needs of a sender; the manager is only looked up when something is sent.
    async def send(self, job: Job, choices: Choices) -> UUID:
        return await self.manager().send(job, choices)

    def send_blocking(self, job: Job, choices: Choices, timeout: float | None) -> UUID:
        return self.without_loop().send_blocking(job, choices, timeout)

    def handle(self, job_id: UUID | str) -> JobHandle[Any]:
        return self.manager().handle(job_id)


_default = _Default()


def configure(
    target: str | Settings | QueueManager | None = None,
    *,
    middleware: Sequence[Middleware] | MiddlewareStack = (),
    bus: EventBus | None = None,
) -> None:
    """Say what ``Queue`` uses: a URL, ``Settings``, or a manager of your own; None goes back to configuration file and
    environment. Raises ``ConfigError``."""
    _default.given = target if isinstance(target, QueueManager) else None
    _default.settings = None if target is None or isinstance(target, QueueManager) else settings_for(target)
    _default.blocking = None
    _default.middleware = stack_of(middleware)
    _default.bus = bus or EventBus()
    _default.configured = bool(target is not None or middleware or bus is not None)
    _default.managers.clear()


def configure_by_default(manager: QueueManager) -> None:
    """Unless ``configure`` was called: let ``Queue`` use ``manager`` on the running event loop, which is its own, and
    elsewhere others with its settings, middleware and bus. For programs that run other people's code, as a worker does."""
    if not _default.configured:
        configure(manager.settings, middleware=manager.middleware, bus=manager.bus)
        _default.managers[asyncio.get_running_loop()] = manager


@contextmanager
def standing_in(manager: QueueManager) -> Generator[None]:
    """Let ``Queue`` use ``manager``, on every event loop and whatever ``configure`` says meanwhile, until the end of the
    block. For tests."""
    before, _default.stand_in = _default.stand_in, manager
    try:
        yield
    finally:
        _default.stand_in = before


def configured() -> tuple[Settings, MiddlewareStack]:
    """The settings and the middleware that ``Queue`` goes by. Raises ``ConfigError``."""
    if _default.given is not None:
        return _default.given.settings, _default.given.middleware
    return _default.settings or settings_for(None), _default.middleware


def unconnected_manager() -> QueueManager:
    """The manager that ``Queue`` uses where no event loop runs: for what needs no connection, as preparing a dispatch.
    Raises ``ConfigError``."""
    return _default.without_loop()


def default_manager() -> QueueManager:
    """The manager that ``Queue`` uses on the running event loop."""
    return _default.manager()


class OnQueue:
    """``Queue.on("emails")``: dispatches to one queue."""

    def __init__(self, name: str) -> None:
        self._name = name

    @overload
    def dispatch(self, job: AsyncHandled[R]) -> Pending[R]: ...
    @overload
    def dispatch(self, job: Handled[R]) -> Pending[R]: ...
    def dispatch(self, job: Any) -> Pending[Any]:
        """A builder for ``job`` on this queue."""
        return Pending[Any](_default, job).on_queue(self._name)

    async def dispatch_many(self, jobs: Iterable[Job]) -> list[UUID]:
        """Dispatch many to this queue."""
        return await _default.manager().dispatch_many(
            [Pending[Any](_default, job).on_queue(self._name) for job in jobs]
        )


class Queue:
    """``await Queue.dispatch(job)``, through the process's default manager."""

    @overload
    @staticmethod
    def dispatch(job: AsyncHandled[R]) -> Pending[R]: ...
    @overload
    @staticmethod
    def dispatch(job: Handled[R]) -> Pending[R]: ...
    @staticmethod
    def dispatch(job: Any) -> Pending[Any]:
        """A builder that dispatches when it is awaited; see ``QueueManager.dispatch``."""
        return Pending(_default, job)

    @staticmethod
    async def dispatch_many(jobs: Iterable[Job | Pending[Any]]) -> list[UUID]:
        """See ``QueueManager.dispatch_many``."""
        return await _default.manager().dispatch_many(jobs)

    @staticmethod
    def on(queue: str) -> OnQueue:
        """Dispatch to this queue. Raises ``InvalidOption`` for a name that can't be one."""
        return OnQueue(queue_name(queue))


JobGroup.find_default = staticmethod(_default.manager)
