"""``Batch`` and ``Chain``: what is to be dispatched together, and what follows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Protocol, Self
from uuid import UUID

from rf_jobs.client.pending import Pending
from rf_jobs.client.workflow.callbacks import Callback, job_of, name_of
from rf_jobs.client.workflow.records import BatchProgress
from rf_jobs.model.job import Job
from rf_jobs.words import options as checks
from rf_jobs.words.errors import InvalidOption
from rf_jobs.words.ids import job_id, new_id
from rf_jobs.words.timing import Duration

MAX_NAME = 200


class Follows(Protocol):
    """A dispatched group at hand; ``BatchHandle``."""

    async def progress(self) -> BatchProgress: ...
    async def cancel(self, reason: str = "") -> bool: ...
    async def wait(self, timeout: Duration | None = None) -> str: ...


class Sends(Protocol):
    """What a group needs of a manager."""

    async def send_group(self, group: Any) -> UUID: ...
    def batch(self, batch_id: UUID | str) -> Follows: ...


class Finds(Protocol):
    """Answers with the process's default manager."""

    def __call__(self) -> Sends: ...


def _no_default() -> Sends:
    raise InvalidOption("there is no default manager; give one: dispatch(manager)")


class JobGroup:
    """What batches and chains share."""

    kind = ""
    find_default: ClassVar[Finds] = staticmethod(_no_default)
    """The process's default manager; ``client/queue.py`` says which that is."""

    def __init__(self) -> None:
        self.id: UUID = new_id()
        """Known before it is dispatched. Dispatched again under the same id it is not doubled."""
        self.label = ""
        self.is_lenient = False
        self.callbacks: dict[str, list[Callback]] = {"then": [], "catch": [], "finally": []}
        self._manager: Sends | None = None

    def name(self, name: str) -> Self:
        """What people know it by."""
        if len(checks.text(name, "name")) > MAX_NAME:
            raise InvalidOption(f"name is {name!r}; give a text of at most {MAX_NAME} characters")
        self.label = name
        return self

    def with_id(self, value: UUID | str) -> Self:
        """Give it this id."""
        self.id = job_id(value)
        return self

    def catch(self, callback: Callback) -> Self:
        """Run this when the first member has failed: a job, or a module-level ``async def f(batch)`` or ``f(batch, error)``.
        Once in its life. Raises ``InvalidOption``, as the others do, for what can't cross to another process."""
        return self._call("catch", callback)

    def finally_(self, callback: Callback) -> Self:
        """Run this when all members have ended, well or not. Once in its life."""
        return self._call("finally", callback)

    def _call(self, event: str, callback: Callback) -> Self:
        if not isinstance(callback, (Job, Pending)):
            name_of(callback)
        self.callbacks[event].append(callback)
        return self

    def jobs_of(self, event: str) -> list[Job | Pending[Any]]:
        """The jobs that an event dispatches."""
        return [job_of(callback, self.id, event) for callback in self.callbacks[event]]

    async def dispatch(self, manager: Sends | None = None) -> UUID:
        """Dispatch it, through the given or the process's default manager; answers with its id.

        All is checked before the first job is sent. Raises as ``dispatch_many`` does, and ``InvalidOption`` for a group that
        can't be. Should the process die in the middle, the jobs that are in run; dispatch it again under the same id
        within a quarter of an hour; after that it has ended as failed (``BatchClosed``).
        """
        if manager is not None:
            if not hasattr(manager, "send_group"):
                raise InvalidOption(
                    f"dispatch got {manager!r}; give a QueueManager, or nothing for the process's default"
                )
            self._manager = manager
        return await self._sender().send_group(self)

    def _sender(self) -> Sends:
        return self._manager or JobGroup.find_default()

    def handle(self) -> Follows:
        """For looking after it once it is dispatched."""
        return self._sender().batch(self.id)

    async def progress(self) -> BatchProgress:
        """See ``BatchHandle.progress``."""
        return await self.handle().progress()

    async def cancel(self, reason: str = "") -> bool:
        """See ``BatchHandle.cancel``."""
        return await self.handle().cancel(reason)

    async def wait(self, timeout: Duration | None = None) -> str:
        """See ``BatchHandle.wait``."""
        return await self.handle().wait(timeout)


Member = Job | Pending[Any] | JobGroup


class Batch(JobGroup):
    """Jobs that run at the same time and end together::

        await Batch(jobs).name("newsletter").then(Done()).catch(on_failed).finally_(Cleanup()).dispatch()

    A member is a job, a builder (``manager.dispatch(job).delay(5)``), a ``Chain`` or another ``Batch``; a group counts as one
    member. Unless ``allow_failures``, the first failure cancels what still waits.
    """

    kind = "batch"

    def __init__(self, members: Iterable[Member] = ()) -> None:
        super().__init__()
        self.members: list[Member] = [checked(member) for member in checks.several(members, "members")]

    def add(self, *members: Member) -> Self:
        """More members, before it is dispatched; see ``BatchHandle.add`` for later."""
        self.members += [checked(member) for member in members]
        return self

    def then(self, callback: Callback) -> Self:
        """Run this when all members have completed. Once in its life; also after ``retry_failed``."""
        return self._call("then", callback)

    def allow_failures(self) -> Self:
        """A failure stops nothing; to an outer batch or chain this one has completed."""
        self.is_lenient = True
        return self


class Chain(JobGroup):
    """Jobs that run one after the other::

        await Chain().then(Fetch()).then(Resize()).then(Publish()).catch(on_error).dispatch()

    A step is a job, a builder, a ``Batch`` or another ``Chain``. A step finds in ``ctx.previous`` what the one before it returned.
    The first failure ends the chain.
    """

    kind = "chain"

    def __init__(self, steps: Iterable[Member] = ()) -> None:
        super().__init__()
        self.members: list[Member] = [checked(step) for step in checks.several(steps, "steps")]

    def then(self, step: Member) -> Self:
        """The next step."""
        self.members.append(checked(step))
        return self


def checked(member: Any) -> Member:
    """A member; raises ``InvalidOption`` for what can be none."""
    if isinstance(member, (Job, Pending, JobGroup)):
        return member
    raise InvalidOption(
        f"a member is {member!r}; give a job, a builder such as manager.dispatch(job), a Batch or a Chain"
    )


Group = Batch | Chain
