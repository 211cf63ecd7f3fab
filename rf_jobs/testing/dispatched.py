"""What a stand-in recorded, what a test expects of it, and how a failure tells the two apart."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from rf_jobs.client.pending import Choices
from rf_jobs.client.workflow.callbacks import Callback
from rf_jobs.core.transitions import Dispatching
from rf_jobs.model.envelope import Envelope
from rf_jobs.model.job import Job
from rf_jobs.words import options as checks
from rf_jobs.words.errors import InvalidOption
from rf_jobs.words.ids import job_id, queue_name
from rf_jobs.words.states import Priority
from rf_jobs.words.timing import from_ms, moment_ms, seconds

J_co = TypeVar("J_co", bound=Job, covariant=True)
SHOWN = 10
"""Dispatches that a failure lists."""
MAX_LINE = 240
OPTIONS = ("at", "delay", "depends_on", "id", "max_attempts", "priority", "queue", "tags")
"""What can be expected of a dispatch beside its job's fields."""
AT_LEAST = ("depends_on", "tags")
"""Of these a dispatch may have more than is expected."""


@dataclass(frozen=True)
class Dispatched(Generic[J_co]):
    """One dispatch, as the store would have taken it."""

    job: J_co
    id: UUID
    queue: str
    priority: Priority
    tags: tuple[str, ...]
    """Those of the class and of the dispatch."""
    delay: float
    """Seconds that it was to wait; 0 where it may run at once."""
    at: datetime | None
    """The time that ``at(...)`` gave (UTC)."""
    max_attempts: int | None
    """What the dispatch asked for; None leaves it to the class."""
    depends_on: tuple[UUID, ...]
    """The jobs, batches and chains that it waits for."""
    choices: Choices = field(compare=False, repr=False)
    """All that was asked for with the builder's methods."""
    envelope: Envelope = field(compare=False, repr=False)
    """What the store would hold; its ``hdr`` are the headers that middlewares set."""

    def __str__(self) -> str:
        told = [f"on {self.queue!r}"]
        if self.at is not None:
            told.append(f"at {self.at.isoformat()}")
        elif self.delay:
            told.append(f"delayed {self.delay:g} s")
        if self.priority is not Priority.NORMAL:
            told.append(f"priority {self.priority.name}")
        if self.max_attempts is not None:
            told.append(f"max_attempts {self.max_attempts}")
        if self.tags:
            told.append(f"tags {', '.join(self.tags)}")
        if self.depends_on:
            told.append(f"after {', '.join(map(str, self.depends_on))}")
        return f"{shown(self.job)} {', '.join(told)}"


@dataclass(frozen=True)
class DispatchedGroup:
    """A batch or a chain, with what is in it."""

    kind: str
    """batch or chain"""
    id: UUID
    name: str
    members: tuple[Dispatched[Any] | DispatchedGroup, ...]
    """Jobs and groups, a chain's in its order."""
    then: tuple[Callback, ...]
    """What was given as callbacks: jobs, builders, functions."""
    catch: tuple[Callback, ...]
    finally_: tuple[Callback, ...]
    allow_failures: bool

    @property
    def jobs(self) -> list[Job]:
        """All jobs in it, those of inner groups too."""
        found: list[Job] = []
        for member in self.members:
            found += member.jobs if isinstance(member, DispatchedGroup) else [member.job]
        return found

    def __str__(self) -> str:
        between = " -> " if self.kind == "chain" else ", "
        inside = [
            f"({each})" if isinstance(each, DispatchedGroup) else shown(each.job) for each in self.members[:SHOWN]
        ]
        if len(self.members) > SHOWN:
            inside.append(f"... and {len(self.members) - SHOWN} more")
        return f"{self.kind}{f' {self.name!r}' if self.name else ''}: {between.join(inside)}"


def dispatched(job: Job, choices: Choices, item: Dispatching, letter: Envelope) -> Dispatched[Any]:
    """The record of a dispatch that was prepared."""
    when = choices.when
    fixed = int(when) if when and when[0] != "+" else 0
    parents = choices.extra.parents if choices.extra is not None else ()
    return Dispatched(
        job, item.id, item.draft.queue, Priority(letter.pri), tuple(letter.tags),
        int(when[1:]) / 1000 if when[:1] == "+" else 0.0, from_ms(fixed) if fixed else None, choices.max_attempts,
        tuple(UUID(parent) for parent in parents), choices, letter,
    )  # fmt: skip


class Expected:
    """What a test expects: a class or a job, values of fields and options, a predicate. Raises ``InvalidOption`` for what
    no dispatch could ever fit."""

    def __init__(
        self, what: type[Job] | Job, where: Callable[[Dispatched[Any]], object] | None, expected: dict[str, Any]
    ) -> None:
        self.kind = what if isinstance(what, type) else type(what)
        if not issubclass(self.kind, Job):
            raise InvalidOption(f"expected is {what!r}; give a Job class, or a job")
        if where is not None and not callable(where):
            raise InvalidOption(
                f"the predicate is {where!r}; give a function of a Dispatched, and fields by name: to='a@b.c'"
            )
        self._where = where
        self._options = {name: _option(name, value) for name, value in expected.items() if name in OPTIONS}
        self._fields = {name: value for name, value in expected.items() if name not in OPTIONS}
        _check_names(self.kind, self._fields, self._options)
        if not isinstance(what, type):
            self._fields = {f.name: getattr(what, f.name) for f in dataclasses.fields(what)} | self._fields

    def faults(self, one: Dispatched[Any]) -> list[str]:
        """Why a dispatch does not fit; none where it does."""
        if not isinstance(one.job, self.kind):
            return [f"is no {self.kind.__name__}"]
        wrong = [_fault(name, getattr(one.job, name), value) for name, value in self._fields.items()]
        for name, value in self._options.items():
            if name not in AT_LEAST:
                wrong.append(_fault(name, getattr(one, name), value))
            elif missing := [each for each in value if each not in getattr(one, name)]:
                wrong.append(f"{name} has no {', '.join(map(str, missing))}")
        faults = [fault for fault in wrong if fault]
        if not faults and self._where is not None and not self._where(one):
            faults.append("the predicate says no")
        return faults

    def __str__(self) -> str:
        values = [f"{name}={shown(value)}" for name, value in {**self._fields, **self._options}.items()]
        what = f"{self.kind.__name__}({', '.join(values)})" if values else self.kind.__name__
        return what + (" that fits the predicate" if self._where else "")


def listing(records: Iterable[Dispatched[Any]], expected: Expected | None = None) -> str:
    """What was dispatched, a line each; those that come nearest to what is expected first, with what is wrong with them."""
    rows = [(expected.faults(one) if expected else [], one) for one in records]
    if not rows:
        return "nothing was dispatched"
    if expected is not None:
        # Another class is further off than any number of other values; a stable sort keeps the order of dispatch.
        rows.sort(key=lambda row: (not isinstance(row[1].job, expected.kind), len(row[0])))
    lines = [
        f"  {one}"
        + (f"    <- {'; '.join(faults)}" if faults and expected and isinstance(one.job, expected.kind) else "")
        for faults, one in rows[:SHOWN]
    ]
    if len(rows) > SHOWN:
        lines.append(f"  ... and {len(rows) - SHOWN} more")
    order = ", nearest first" if expected is not None and len(rows) > 1 else ""
    return f"dispatched were{order}:\n" + "\n".join(lines)


def shown(value: object) -> str:
    """A value's ``repr``, cut to a line. One that raises does not hide the rest."""
    try:
        text = repr(value)
    except Exception as error:  # of a user's class
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= MAX_LINE else text[: MAX_LINE - 1] + "…"


def times(value: int | None) -> int | None:
    """How often something is expected; raises ``InvalidOption``."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise InvalidOption(f"times is {value!r}; give a whole number from 0")


def often(count: int) -> str:
    """'once', '3 times'."""
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def _fault(name: str, value: object, expected: object) -> str:
    return "" if value == expected else f"{name} is {shown(value)}, not {shown(expected)}"


def _option(name: str, value: Any) -> Any:
    """An expected option, in the form that a ``Dispatched`` has it."""
    if name == "delay":
        return 0.0 if value is None else seconds(value, "delay")
    if name == "at":
        return None if value is None else from_ms(moment_ms(value, "at"))
    if name == "id":
        return job_id(value)
    if name == "depends_on":
        return tuple(job_id(each) for each in ([value] if isinstance(value, (str, UUID)) else value))
    if name == "queue":
        return queue_name(value)
    if name == "priority":
        return checks.priority(value)
    if name == "tags":
        return checks.tags(value)
    return None if value is None else checks.attempts(value)


def _check_names(kind: type[Job], fields: Iterable[str], options: Iterable[str]) -> None:
    known: Sequence[str] = [f.name for f in dataclasses.fields(kind)]
    for name in options:
        if name in known:
            raise InvalidOption(
                f"{name!r} is a field of {kind.__name__} and an option of every dispatch; say which one with a predicate,"
                f" lambda d: d.job.{name} == ... or d.{name} == ..."
            )
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(name, [*known, *OPTIONS, "times"], 1)
            hint = f"did you mean {near[0]!r}?" if near else f"its fields are {', '.join(known) or 'none'}"
            raise InvalidOption(f"{kind.__name__} has no field {name!r}; {hint}")
