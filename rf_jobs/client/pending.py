"""The awaitable builder: ``await Queue.dispatch(job).delay(60).priority(Priority.HIGH)``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from datetime import datetime
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, runtime_checkable
from uuid import UUID

from rf_jobs.client.extra import Extra, UniqueChoice, checked_unique
from rf_jobs.client.handle import JobHandle
from rf_jobs.model import limits as terms
from rf_jobs.model.job import Job
from rf_jobs.store.options import Slot
from rf_jobs.words import options as checks
from rf_jobs.words.errors import InvalidOption
from rf_jobs.words.ids import job_id, queue_name
from rf_jobs.words.limits import OnConflict, OnFailure, OnLimit, Until, at_least_one, choice, limit_name, positive_ms
from rf_jobs.words.states import Priority
from rf_jobs.words.timing import Duration, millis, moment_ms, seconds

R = TypeVar("R")
P = ParamSpec("P")


@runtime_checkable
class Parent(Protocol):
    """What a job can wait for: a handle on a job, a batch or a chain."""

    @property
    def id(self) -> UUID: ...


class Choices:
    """What a dispatch asks for beyond what its class says. ``None``: as the class says."""

    __slots__ = ("expires_ms", "extra", "id", "max_attempts", "priority", "queue", "tags", "when")

    def __init__(self) -> None:
        self.queue: str | None = None
        self.when = ""
        """As the store takes it: '' now, '+<ms>' from now, '<ms>' at that time."""
        self.max_attempts: int | None = None
        self.priority: Priority | None = None
        self.expires_ms: int | None = None
        """From now."""
        self.tags: tuple[str, ...] | None = None
        self.id: UUID | None = None
        self.extra: Extra | None = None

    def more(self) -> Extra:
        """What only some dispatches ask for."""
        if self.extra is None:
            self.extra = Extra()
        return self.extra


class Sender(Protocol):
    """What a pending dispatch needs of a manager."""

    async def send(self, job: Job, choices: Choices) -> UUID: ...
    def send_blocking(self, job: Job, choices: Choices, timeout: float | None) -> UUID: ...
    def handle(self, job_id: UUID | str) -> JobHandle[Any]: ...


def _step(
    method: Callable[Concatenate[Pending[R], P], Pending[R]],
) -> Callable[Concatenate[Pending[R], P], Pending[R]]:
    """A builder's method. Where it raises, the caller knows that nothing was dispatched: no warning on top of that."""

    @wraps(method)
    def step(self: Pending[R], /, *args: P.args, **options: P.kwargs) -> Pending[R]:
        done, self._done = self._done, True
        method(self, *args, **options)
        self._done = done
        return self

    return step


class Pending(Generic[R]):
    """A dispatch that happens when it is awaited; the value is the job's id.

    Dropped without being awaited it warns, as a coroutine does, since nothing was dispatched. Each method checks its
    argument at once (``InvalidOption``) and answers with the same builder.
    """

    __slots__ = ("_choices", "_done", "_job", "_sender")

    def __init__(self, sender: Sender, job: Job, choices: Choices | None = None) -> None:
        self._done = True  # should the checks below raise, there is nothing to warn of
        if not isinstance(job, Job):
            raise InvalidOption(f"dispatch got {job!r}; give an instance of a Job class")
        self._sender = sender
        self._job = job
        self._choices = choices or Choices()
        self._done = False

    @property
    def job(self) -> Job:
        """The job to be dispatched."""
        return self._job

    def take(self) -> tuple[Job, Choices]:
        """The job and its choices, for a caller that dispatches it itself."""
        self._done = True
        return self._job, self._choices

    @_step
    def on_queue(self, queue: str) -> Pending[R]:
        """Send it to this queue."""
        self._choices.queue = queue_name(queue)
        return self

    @_step
    def delay(self, delay: Duration) -> Pending[R]:
        """Run it no sooner than this from now (by the server's clock)."""
        self._choices.when = f"+{millis(delay, 'delay')}"
        return self

    @_step
    def at(self, when: datetime) -> Pending[R]:
        """Run it no sooner than at this time (aware); a time that has passed means at once."""
        self._choices.when = str(max(1, moment_ms(when, "at")))
        return self

    @_step
    def max_attempts(self, attempts: int) -> Pending[R]:
        """Try it this often in all."""
        self._choices.max_attempts = checks.attempts(attempts)
        return self

    @_step
    def priority(self, priority: Priority | str | int) -> Pending[R]:
        """Its priority within the queue."""
        self._choices.priority = checks.priority(priority)
        return self

    @_step
    def expires_in(self, duration: Duration) -> Pending[R]:
        """If it has not started by then, it ends as ``expired``."""
        ms = millis(duration, "expires_in")
        if ms <= 0:
            raise InvalidOption(f"expires_in is {duration!r}; it must be more than 0 seconds")
        self._choices.expires_ms = ms
        return self

    @_step
    def tags(self, *tags: str) -> Pending[R]:
        """Tags beside those of its class."""
        self._choices.tags = checks.tags(tags)
        return self

    @_step
    def unique_for(
        self, window: Duration | None, *, until: Until = "window", on_conflict: OnConflict = "return",
        by: Sequence[str] = (), max_wait: Duration | None = None,
    ) -> Pending[R]:  # fmt: skip
        """Don't enqueue it while an equal job holds the lock: for ``window`` (``until="window"``), until that has started, or
        until it is done; then the window is the longest, and None leaves it to the job.

        Equal are jobs of one class with the same payload; or with the same fields ``by``; or what ``unique_key()`` says.
        ``on_conflict``: ``return`` the holder's id, ``raise`` ``DuplicateJob``, ``replace`` the holder if it has not started,
        or ``debounce``: replace it and run ``window`` after the last of them, at most ``max_wait`` after the first.
        """
        checked_unique(window, until, on_conflict, max_wait)
        by = checks.several(by, "by")
        terms.check_unique_by(type(self._job), by)
        extra = self._choices.more()
        extra.unique = UniqueChoice(window, until, on_conflict, tuple(by), max_wait)
        return self

    @_step
    def depends_on(self, *parents: UUID | str | Parent, on_failure: OnFailure = "cancel") -> Pending[R]:
        """Run it when all these jobs (or batches, or chains) have completed. If one fails, is cancelled or expires:
        ``cancel`` this one, ``run`` it all the same, or make it a ``dead`` letter. Awaiting raises ``JobNotFound`` for a parent
        that is not known."""
        choice(on_failure, OnFailure, "on_failure")
        extra = self._choices.more()
        ids = [str(job_id(parent.id if isinstance(parent, Parent) else parent)) for parent in parents]
        extra.parents = tuple(dict.fromkeys((*extra.parents, *ids)))
        extra.on_failure = on_failure
        return self

    @_step
    def rate_limit(self, name: str, limit: int, per: Duration, *, on_limit: OnLimit = "delay") -> Pending[R]:
        """Let at most ``limit`` dispatches of this ``name`` become due within any ``per`` seconds. Over the limit it is delayed to
        the next free slot, or refused with ``RateLimited`` (``raise``), or not enqueued (``drop``; the id that is answered is then
        nobody's)."""
        choice(on_limit, OnLimit, "on_limit")
        slot = Slot(limit_name(name), at_least_one(limit, "limit"), positive_ms(per, "per"), on_limit)
        self._choices.more().slot = slot
        return self

    @_step
    def with_id(self, value: UUID | str) -> Pending[R]:
        """Give it this id. The same job sent again under the same id is not doubled; another one under it is refused
        with ``DuplicateJob``."""
        self._choices.id = job_id(value)
        return self

    def __await__(self) -> Generator[Any, None, UUID]:
        self._done = True
        return self._sender.send(self._job, self._choices).__await__()

    def sync(self, timeout: Duration | None = 10.0) -> UUID:
        """Dispatch from code without an event loop; waits for the server at most ``timeout``."""
        self._done = True
        limit = None if timeout is None else seconds(timeout, "timeout")
        return self._sender.send_blocking(self._job, self._choices, limit)

    async def handle(self) -> JobHandle[R]:
        """Dispatch, and answer with a handle whose ``result()`` has the type that the job's ``handle`` returns."""
        return self._sender.handle(await self)

    async def result(self, timeout: Duration | None = None) -> R:
        """Dispatch, wait for the job to end, and answer with its result; raises as ``QueueManager.wait`` does."""
        return await (await self.handle()).result(timeout)

    def __repr__(self) -> str:
        return f"<Pending {self._job!r}{' (done)' if self._done else ''}>"

    def __del__(self) -> None:
        if not getattr(self, "_done", True):
            name = type(self._job).__qualname__
            warnings.warn(
                f"the dispatch of {name} was never awaited: nothing was enqueued",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )


R_co = TypeVar("R_co", covariant=True)


class AsyncHandled(Protocol[R_co]):
    """A job whose ``handle`` is a coroutine function."""

    async def handle(self, ctx: Any) -> R_co: ...


class Handled(Protocol[R_co]):
    """A job whose ``handle`` is a plain function."""

    def handle(self, ctx: Any) -> R_co: ...
