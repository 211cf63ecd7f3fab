"""``FakeQueue``: a manager without a server, which records what is dispatched."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NoReturn, Self, TypeVar, overload
from uuid import UUID

from rf_jobs.client.dispatcher import Asked, difference
from rf_jobs.client.manager import QueueManager
from rf_jobs.client.pending import Choices, Pending
from rf_jobs.client.queue import configured, standing_in
from rf_jobs.core.transitions import Dispatching
from rf_jobs.model.events import DispatchRejected, EventBus, JobDeduplicated
from rf_jobs.model.job import Job
from rf_jobs.model.middleware import Middleware, MiddlewareStack
from rf_jobs.store.redis import AsyncStore
from rf_jobs.testing.dispatched import Dispatched, Expected, dispatched, listing, often, times
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.errors import BackendError, DuplicateJob, WorkerError

J = TypeVar("J", bound=Job)
T = TypeVar("T")
Where = Callable[[Dispatched[J]], object]


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


class FakeQueue(QueueManager):
    """Records dispatches instead of sending them. ``with FakeQueue() as queue:`` has ``Queue`` use it until the end of the
    block, in all threads; or pass it where a ``QueueManager`` is wanted.

    Payloads, options and middlewares are treated as by the real manager, and what that one refuses is refused here with the
    same error. Without arguments it has the settings and middlewares that ``Queue`` has. What asks the server of a job or a
    queue raises ``BackendError``.
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
        self._records: list[Dispatched[Any]] = []
        self._known: dict[UUID, bytes] = {}
        self._lock = threading.RLock()
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

    # --- what a manager does ---------------------------------------------------------------------------------------

    async def send(self, job: Job, choices: Choices) -> UUID:
        """Record one."""
        return self._record([(job, choices)])[0][0].id

    def send_blocking(self, job: Job, choices: Choices, timeout: float | None) -> UUID:
        """Record one, for ``.sync()``."""
        return self._record([(job, choices)])[0][0].id

    async def dispatch_many(self, jobs: Iterable[Job | Pending[Any]]) -> list[UUID]:
        """Record many, all or none."""
        asked = [job.take() if isinstance(job, Pending) else Pending[Any](self, job).take() for job in jobs]

        async def send() -> list[UUID]:
            return [item.id for item, _ in self._record(asked)]

        result: list[UUID] = await self.middleware.batch(len(asked), send) if asked else []
        return result

    def _record(self, asked: Sequence[Asked]) -> list[tuple[Dispatching, Dispatched[Any] | None]]:
        """Keep what is new. Under an id that is taken the same job is the caller's own dispatch sent again: no record."""
        items = [self._preparer.prepare(job, choices) for job, choices in asked]
        made: list[tuple[Dispatching, Dispatched[Any] | None]] = []
        with self._lock:
            known = dict(self._known)
            for item, (job, choices) in zip(items, asked, strict=True):
                holder = known.setdefault(item.id, item.draft.data)
                if holder is item.draft.data:
                    made.append((item, dispatched(job, choices, item)))
                elif why := difference(item.draft.id, holder, item.draft.data):
                    self._reject(item)
                    raise DuplicateJob(f"{why}; nothing was enqueued")
                else:
                    made.append((item, None))
            self._known = known
            self._records += [record for _, record in made if record is not None]
        for item, record in made:
            e = item.event
            self.bus.emit(JobDeduplicated(e.job_id, e.queue, e.job_class) if record is None else e)
        return made

    def _reject(self, item: Dispatching) -> None:
        e = item.event
        self.bus.emit(DispatchRejected(e.queue, e.job_class, DuplicateJob.__name__, e.job_id, e.traceparent, e.began))

    # --- what was dispatched ---------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._records)

    def __bool__(self) -> bool:
        return True  # a manager, however little was dispatched

    def __iter__(self) -> Iterator[Dispatched[Any]]:
        return iter(list(self._records))

    @property
    def ids(self) -> list[UUID]:
        """Ids of what was dispatched, in order."""
        return [one.id for one in self._records]

    @property
    def jobs(self) -> list[Job]:
        """The jobs that were dispatched, in order."""
        return [one.job for one in self._records]

    @overload
    def dispatched(self, what: type[J], where: Where[J] | None = None, /, **expected: Any) -> list[Dispatched[J]]: ...
    @overload
    def dispatched(self, what: J, where: Where[J] | None = None, /, **expected: Any) -> list[Dispatched[J]]: ...
    def dispatched(self, what: Any, where: Where[Any] | None = None, /, **expected: Any) -> list[Dispatched[Any]]:
        """The dispatches that fit, in order; takes what ``assert_dispatched`` takes."""
        wanted = Expected(what, where, expected)
        return [one for one in self if not wanted.faults(one)]

    def forget(self) -> None:
        """Forget what was dispatched so far."""
        with self._lock:
            self._records, self._known = [], {}

    # --- what a test expects ---------------------------------------------------------------------------------------

    @overload
    def assert_dispatched(
        self, what: type[J], where: Where[J] | None = None, /, *, times: int | None = None, **expected: Any
    ) -> list[Dispatched[J]]: ...
    @overload
    def assert_dispatched(
        self, what: J, where: Where[J] | None = None, /, *, times: int | None = None, **expected: Any
    ) -> list[Dispatched[J]]: ...
    def assert_dispatched(
        self, what: Any, where: Where[Any] | None = None, /, *, times: int | None = None, **expected: Any
    ) -> list[Dispatched[Any]]:
        """Fail unless a job was dispatched: one of a class, or one equal to a job. Answers with those that fit.

        Names are fields of the job and options of the dispatch: ``queue``, ``priority``, ``tags`` (it has these, and maybe
        more), ``delay``, ``at``, ``max_attempts``, ``id``. ``where`` is a predicate of a ``Dispatched``. ``times``: exactly
        so often; without it at least once. A failure lists what was dispatched, nearest first. Raises ``InvalidOption``
        for names and values that no dispatch could have.
        """
        __tracebackhide__ = True
        wanted, expected_times = Expected(what, where, expected), _times(times)
        found = [one for one in self if not wanted.faults(one)]
        if len(found) != expected_times if expected_times is not None else not found:
            was = f"{wanted} was dispatched {often(len(found))}" if found else f"{wanted} was not dispatched"
            should = "" if expected_times is None else f", expected {often(expected_times)}"
            raise AssertionError(f"{was}{should}; {listing(self, wanted)}")
        return found

    def assert_not_dispatched(self, what: type[Job] | Job, where: Where[Any] | None = None, /, **expected: Any) -> None:
        """Fail if such a job was dispatched; takes what ``assert_dispatched`` takes."""
        __tracebackhide__ = True
        wanted = Expected(what, where, expected)
        found = [one for one in self if not wanted.faults(one)]
        if found:
            raise AssertionError(f"{wanted} was dispatched, expected never; {listing(found)}")

    def assert_nothing_dispatched(self) -> None:
        """Fail if anything was dispatched."""
        __tracebackhide__ = True
        if self._records:
            raise AssertionError(f"{len(self)} jobs were dispatched, expected none; {listing(self)}")

    def assert_count(self, count: int) -> None:
        """Fail unless exactly so many jobs were dispatched in all."""
        __tracebackhide__ = True
        if len(self) != _times(count):
            raise AssertionError(f"{len(self)} jobs were dispatched, expected {count}; {listing(self)}")


_times = times
