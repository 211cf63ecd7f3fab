"""``Job``: the base of every job class. A job is a message: a frozen dataclass with a handler."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import reprlib
from typing import TYPE_CHECKING, Any, ClassVar, Never, dataclass_transform

from rf_jobs.model import limits as terms
from rf_jobs.model import many as together
from rf_jobs.model.jobclass import DYNAMIC, JobClass, describe, registry
from rf_jobs.model.sealing import UnreadAnnotations
from rf_jobs.words.config_secrets import MASK
from rf_jobs.words.errors import InvalidOption, JobError
from rf_jobs.words.options import JobOptions, options_from

if TYPE_CHECKING:
    from rf_jobs.model.context import JobContext
    from rf_jobs.words.backoff import BackoffLike
    from rf_jobs.words.limits import Breaker, OnConflict, Rate, Until
    from rf_jobs.words.states import Priority
    from rf_jobs.words.timing import Duration

_RESERVED = frozenset({*DYNAMIC, "handle", "handle_many", "failed", "upgrade"})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,))
@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A unit of work: typed fields, and ``handle`` that does it.

    Subclassing makes the class a frozen, keyword-only dataclass and registers it under a stable name. Class keywords
    are the short form of the option methods below, each of which a subclass may override instead.

    Raises ``InvalidOption`` when the class is defined with an unknown or impossible option, or one given as a plain class
    attribute, without ``handle``, with a ``failed`` that is no coroutine, or with a field named like one of the methods
    here.
    """

    __job_class__: ClassVar[JobClass]

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        version: int = 1,
        aliases: tuple[str, ...] | list[str] = (),
        abstract: bool = False,
        queue: str | None = None,
        max_attempts: int | None = None,
        backoff: BackoffLike | None = None,
        timeout: Duration | None = None,
        priority: Priority | None = None,
        tags: tuple[str, ...] | list[str] | None = None,
        result_ttl: Duration | None = None,
        executor: str | None = None,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] | None = None,
        discard_on: type[BaseException] | tuple[type[BaseException], ...] | None = None,
        many: int | None = None,
        many_wait: Duration | None = None,
        encrypt: bool | None = None,
        concurrency: int | None = None,
        concurrency_key: str | None = None,
        rate: Rate | None = None,
        limits: tuple[str, ...] | list[str] | None = None,
        fair_key: str | None = None,
        fair_weight: int | str | None = None,
        breaker: Breaker | None = None,
        unique_for: Duration | None = None,
        unique_by: tuple[str, ...] | list[str] | None = None,
        unique_until: Until | None = None,
        on_conflict: OnConflict | None = None,
        **unknown: Never,
    ) -> None:
        super().__init_subclass__()
        _check_fields(cls)
        _check_attributes(cls)
        together.adopt(cls)
        dataclasses.dataclass(frozen=True, kw_only=True, repr=False)(cls)
        given: dict[str, object] = {
            key: value
            for key, value in {
                "queue": queue,
                "max_attempts": max_attempts,
                "backoff": backoff,
                "timeout": timeout,
                "priority": priority,
                "tags": tags,
                "result_ttl": result_ttl,
                "executor": executor,
                "retry_on": retry_on,
                "discard_on": discard_on,
                "many": many,
                "many_wait": many_wait,
                "encrypt": encrypt,
                "concurrency": concurrency,
                "concurrency_key": concurrency_key,
                "rate": rate,
                "limits": limits,
                "fair_key": fair_key,
                "fair_weight": fair_weight,
                "breaker": breaker,
                "unique_for": unique_for,
                "unique_by": unique_by,
                "unique_until": unique_until,
                "on_conflict": on_conflict,
            }.items()
            if value is not None
        }
        inherited = getattr(cls, "__job_class__", None)
        if inherited is not None:
            base = {f.name: getattr(inherited.options, f.name) for f in dataclasses.fields(JobOptions)}
            given = {**base, **given}
        options = options_from({**given, **unknown}, cls.__qualname__)
        if not isinstance(version, int) or version < 1:
            raise InvalidOption(f"class {cls.__qualname__}: version is {version!r}; it must be a whole number from 1")
        terms.check(cls, options, [field.name for field in dataclasses.fields(cls)])
        together.check(cls, options, asked=(many, many_wait) != (None, None), abstract=abstract)
        if not abstract and not callable(getattr(cls, "handle", None)):
            raise InvalidOption(f"class {cls.__qualname__} has no handle(self, ctx); define it, or pass abstract=True")
        if abstract and not hasattr(cls, "handle"):
            # A place for options that subclasses share; it is nobody's job and is not registered.
            cls.__job_class__ = JobClass("", cls, options, version, False, False, frozenset())
            return
        cls.__job_class__ = describe(cls, name, version, options, Job, aliases)
        terms.check_names(cls.__job_class__)
        with contextlib.suppress(UnreadAnnotations):  # what they name may be defined below the class
            _ = cls.__job_class__.sealing
        if not abstract:
            registry.add(cls.__job_class__)

    @reprlib.recursive_repr()
    def __repr__(self) -> str:
        shown = [field for field in dataclasses.fields(self) if field.repr]
        hides = self.__job_class__.hides
        said = (f"{f.name}={MASK if hides(f.name) else repr(getattr(self, f.name))}" for f in shown)
        return f"{type(self).__qualname__}({', '.join(said)})"

    if TYPE_CHECKING:

        def handle(self, ctx: JobContext) -> Any:
            """Do the work. ``async def`` runs on the event loop, ``def`` in a thread (or a process).

            What it returns is the job's result. Raise ``Retry``, ``Snooze``, ``Discard`` or ``Fail`` to steer.

            A class may have ``handle_many(cls, jobs, ctxs)`` instead, a class method that gets up to ``many`` of its jobs
            at once; docs/guides/batch-consumers.md.
            """

    async def failed(self, ctx: JobContext, error: JobError) -> None:
        """Called once, after the last attempt failed, before the job is buried. Override to clean up or to notify.

        Also after the last crash of a job that ran in a process of its own (``executor="process"``, or from its third run
        after two crashes): ``error`` then is an ``ExecutionFailed`` that says so. Of a job that killed whole workers the
        one calls it that finds it buried, at most once, and not where none is left that knows the class. It is not called for a job that is buried unread: its class is
        unknown, or its payload does not fit.
        """

    def queue(self) -> str | None:
        """The queue to go to; None: the process's default."""
        return self.__job_class__.options.queue

    def max_attempts(self) -> int | None:
        """How often to try in all; None: the worker's setting."""
        return self.__job_class__.options.max_attempts

    def backoff(self) -> BackoffLike | None:
        """The delay before another attempt: seconds, a timedelta or a policy; None: the worker's setting."""
        return self.__job_class__.options.backoff

    def timeout(self) -> Duration | None:
        """How long one attempt may take; None: the worker's setting."""
        return self.__job_class__.options.timeout

    def priority(self) -> Priority:
        """The priority within the queue."""
        return self.__job_class__.options.priority

    def unique_key(self) -> str | None:
        """What makes two jobs the same for ``unique_for``; None: class and payload."""
        return None

    def tags(self) -> tuple[str, ...]:
        """Short strings to find the job by."""
        return self.__job_class__.options.tags

    @classmethod
    def upgrade(cls, payload: dict[str, Any], version: int) -> dict[str, Any]:  # noqa: ARG003 (for subclasses)
        """Turn a payload that was written by ``version`` of this class into one of today's."""
        return payload


def _field_names(cls: type[Job]) -> list[str]:
    """Its own, and those of all its bases; before it is made a dataclass."""
    bases = [base for base in cls.__mro__[1:] if dataclasses.is_dataclass(base)]
    return [*inspect.get_annotations(cls), *(field.name for base in bases for field in dataclasses.fields(base))]


def _check_fields(cls: type[Job]) -> None:
    for field in _field_names(cls):
        if field in _RESERVED or any(inspect.isfunction(vars(base).get(field)) for base in cls.__mro__[1:]):
            raise InvalidOption(
                f"class {cls.__qualname__} has a field {field!r}, which is the name of a method of Job; rename the field"
            )
        if field.startswith("__"):
            raise InvalidOption(
                f"class {cls.__qualname__} has a field {field!r}; field names must not start with two underscores"
            )


def _check_attributes(cls: type[Job]) -> None:
    """Refuse what would be found out only when a job is dispatched, or not at all."""
    fields = _field_names(cls)
    for option in dict.fromkeys((*DYNAMIC, *(f.name for f in dataclasses.fields(JobOptions)))):
        value = getattr(cls, option, None)
        if value is not None and option not in fields and not inspect.isroutine(value):
            form = f"class {cls.__name__}(Job, {option}={value!r})"
            raise InvalidOption(
                f"class {cls.__qualname__} sets {option} as an attribute; an option is a class keyword, {form}, or a method"
            )
    if not inspect.iscoroutinefunction(inspect.unwrap(cls.failed)):
        raise InvalidOption(f"failed() of class {cls.__qualname__} is a plain function; make it `async def failed`")
