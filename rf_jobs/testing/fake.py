"""``FakeQueue``: a manager without a server, which records what is dispatched."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NoReturn, Self, TypeVar
from uuid import UUID

from rf_jobs.client.manager import QueueManager
from rf_jobs.client.pending import Choices, Pending
from rf_jobs.client.queue import configured, standing_in
from rf_jobs.client.workflow.groups import Batch, Group
from rf_jobs.client.workflow.plan import plan_of
from rf_jobs.model.events import EventBus
from rf_jobs.model.job import Job
from rf_jobs.model.middleware import Middleware, MiddlewareStack
from rf_jobs.store.redis import AsyncStore
from rf_jobs.sync import QueueManager as BlockingManager
from rf_jobs.testing.asserting import Asserts
from rf_jobs.testing.attempts import on_a_loop
from rf_jobs.testing.dispatched import Dispatched, DispatchedGroup
from rf_jobs.testing.recorder import Kept, Recorder
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.errors import BackendError, WorkerError

T = TypeVar("T")


class NoServer(AsyncStore):
    """The store of a stand-in: there is none, and what needs one says so."""

    async def connect(self) -> None:
        """There is nothing to make contact with."""

    async def _retrying(self, op: str, attempt: Callable[[], Awaitable[T]], retry_for: float) -> T:
        self._refuse(op)

    async def wait_for_wake(self, queues: Sequence[str], timeout: float) -> str | None:
        self._refuse("wait_for_wake")

    async def pass_on(self, queue: str) -> None:
        self._refuse("pass_on")

    async def finals(self) -> Any:
        self._refuse("wait")

    async def drop_namespace(self) -> int:
        self._refuse("drop_namespace")

    def _refuse(self, op: str) -> NoReturn:
        raise BackendError(
            f"{op}: this manager is a stand-in that records dispatches and has no server behind it; to run the jobs too"
            " use inline(), or a real manager with drain()"
        )


class FakeQueue(Asserts, QueueManager):
    """Records dispatches instead of sending them. ``with FakeQueue() as queue:`` has ``Queue`` use it until the end of the
    block, in all threads; or pass it where a ``QueueManager`` is wanted.

    Payloads, options and middlewares are treated as by the real manager, and what that one refuses without asking the server
    is refused here with the same error; ids and unique locks are kept as in the store. Parents are not looked for, and a
    dispatch limit is never reached. Without arguments it has the settings and middlewares that ``Queue`` has. What asks the
    server of a job or a queue raises ``BackendError``.
    """

    _store_type: ClassVar[type[AsyncStore]] = NoServer

    def __init__(
        self,
        target: str | Settings | None = None,
        *,
        namespace: str | None = None,
        middleware: Sequence[Middleware] | MiddlewareStack = (),
        bus: EventBus | None = None,
    ) -> None:
        if target is None:
            target, usual = configured()
            middleware = middleware or usual
        super().__init__(target, namespace=namespace, middleware=middleware, bus=bus)
        self._recorder = Recorder(self._preparer, self.protection, self.bus)
        self._over: list[AbstractContextManager[None]] = []

    def __enter__(self) -> Self:
        over = standing_in(self)
        over.__enter__()
        self._over.append(over)
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._over:
            raise WorkerError("this stand-in was not entered; use `with FakeQueue() as queue:`")
        self._over.pop().__exit__(None, None, None)

    @property
    def blocking(self) -> BlockingManager:
        """A ``rf_jobs.sync.QueueManager`` that dispatches to this stand-in, for code that is handed one."""
        return _Blocking(self)

    async def send(self, job: Job, choices: Choices) -> UUID:
        """Record one."""
        return self._recorder.record([(job, choices)])[0].id

    def send_blocking(self, job: Job, choices: Choices, timeout: float | None) -> UUID:
        """Record one, for ``.sync()``."""
        return self._recorder.record([(job, choices)])[0].id

    async def dispatch_many(self, jobs: Iterable[Job | Pending[Any]]) -> list[UUID]:
        """Record many, all or none."""
        asked = [job.take() if isinstance(job, Pending) else Pending[Any](self, job).take() for job in jobs]

        async def send() -> list[UUID]:
            return [kept.id for kept in self._recorder.record(asked)]

        result: list[UUID] = await self.middleware.batch(len(asked), send) if asked else []
        return result

    async def send_group(self, group: Group) -> UUID:
        """Record a batch or a chain, and the jobs in it; once under one id."""
        await self._record_group(group)
        return group.id

    async def _record_group(self, group: Group) -> list[Kept] | None:
        """Answers with its jobs, in the order in which they stand in it; None where it was there already."""
        plan = plan_of(group)

        async def send() -> list[Kept] | None:
            for planned in plan.groups:
                self._groups.opened(planned)  # checks the callbacks
            if any(known.id == group.id for known in self._recorder.groups):
                return None
            kept = self._recorder.record(plan.jobs)
            self._recorder.groups.append(_tree(group, iter(kept)))
            return kept

        kept: list[Kept] | None = await self.middleware.batch(len(plan.jobs), send)
        return kept


class _Blocking(BlockingManager):
    """The synchronous face of a stand-in. It has no connection, so each call has an event loop of its own."""

    def __init__(self, fake: FakeQueue) -> None:
        super().__init__(fake.settings, middleware=fake.middleware, bus=fake.bus)
        self._fake = fake

    def _run(self, use: Callable[[QueueManager], Coroutine[Any, Any, T]], timeout: float | None = None) -> T:
        return on_a_loop(lambda: use(self._fake)).result(timeout)

    async def send(self, job: Job, choices: Choices) -> UUID:
        return await self._fake.send(job, choices)

    def send_blocking(self, job: Job, choices: Choices, timeout: float | None) -> UUID:
        return self._fake.send_blocking(job, choices, timeout)


def _tree(group: Group, kept: Iterator[Kept]) -> DispatchedGroup:
    """A group's record; ``kept`` are its jobs, in the order in which a plan has them."""
    members: list[Dispatched[Any] | DispatchedGroup] = []
    for member in group.members:
        if isinstance(member, Group):
            members.append(_tree(member, kept))
        elif (record := next(kept).record) is not None:
            members.append(record)
    calls = group.callbacks
    return DispatchedGroup(
        group.kind, group.id, group.label, tuple(members), tuple(calls["then"]), tuple(calls["catch"]),
        tuple(calls["finally"]), isinstance(group, Batch) and group.is_lenient,
    )  # fmt: skip
