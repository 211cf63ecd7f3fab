"""What a test may expect of a stand-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, overload
from uuid import UUID

from rf_jobs.model.job import Job
from rf_jobs.testing.dispatched import Dispatched, DispatchedGroup, Expected, listing, often, times
from rf_jobs.testing.recorder import Recorder
from rf_jobs.words.errors import InvalidOption

J = TypeVar("J", bound=Job)
Where = Callable[[Dispatched[J]], object]
Member = type[Job] | Job | Sequence[Any]
"""An expected member of a group: a class, a job, or a list of them for a group inside."""
_times = times


class Asserts:
    """Looks at what was recorded. All ``assert_...`` raise ``AssertionError`` with what was dispatched, nearest first, and
    ``InvalidOption`` for what no dispatch could ever be."""

    _recorder: Recorder

    def __len__(self) -> int:
        return len(self._recorder.records)

    def __bool__(self) -> bool:
        return True  # a manager, however little was dispatched

    def __iter__(self) -> Iterator[Dispatched[Any]]:
        return iter(list(self._recorder.records))

    @property
    def ids(self) -> list[UUID]:
        """Ids of what was dispatched, in order."""
        return [one.id for one in self]

    @property
    def jobs(self) -> list[Job]:
        """The jobs that were dispatched, in order."""
        return [one.job for one in self]

    @property
    def groups(self) -> list[DispatchedGroup]:
        """The batches and chains that were dispatched, in order. The jobs in them are among ``jobs`` too."""
        return list(self._recorder.groups)

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
        self._recorder.forget()

    # --- jobs ------------------------------------------------------------------------------------------------------

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
        more), ``delay``, ``at``, ``max_attempts``, ``depends_on`` (likewise), ``id``. ``where`` is a predicate of a
        ``Dispatched``. ``times``: exactly so often; without it at least once.
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
        if len(self) or self.groups:
            raise AssertionError(f"{_jobs(len(self))} dispatched, expected none; {listing(self)}")

    def assert_count(self, count: int) -> None:
        """Fail unless exactly so many jobs were dispatched in all."""
        __tracebackhide__ = True
        if len(self) != _times(count):
            raise AssertionError(f"{_jobs(len(self))} dispatched, expected {count}; {listing(self)}")

    # --- groups ----------------------------------------------------------------------------------------------------

    def assert_chained(
        self, *steps: Member, name: str | None = None, times: int | None = None
    ) -> list[DispatchedGroup]:
        """Fail unless a chain of exactly these steps was dispatched, in this order: a class stands for any job of it, a job
        for an equal one, a list for a group with these members. Answers with those that fit."""
        __tracebackhide__ = True
        if not steps:
            raise InvalidOption("assert_chained got no steps; give the classes or jobs of the chain in their order")
        _check(steps)
        what = f"a chain {_named(steps, ' -> ', name)}"
        return self._assert_group("chain", what, lambda group: _fits(group, steps, name), times)

    def assert_batched(
        self,
        where: Callable[[DispatchedGroup], object] | None = None,
        /,
        *,
        members: Sequence[Member] | None = None,
        count: int | None = None,
        name: str | None = None,
        times: int | None = None,
    ) -> list[DispatchedGroup]:
        """Fail unless a batch was dispatched: with exactly these ``members`` (as ``assert_chained`` takes steps), so many of
        them (``count``), of this ``name``, that fits the predicate. Answers with those that fit."""
        __tracebackhide__ = True
        if where is not None and not callable(where):
            raise InvalidOption(f"the predicate is {where!r}; give a function of a DispatchedGroup, and members=[...]")
        _check(members or ())
        size = _times(count)
        told = [f"of {size} members"] if size is not None else []
        told += [_named(members or (), ", ", name)] if members is not None or name is not None else []
        told += ["that fits the predicate"] if where is not None else []

        def fits(group: DispatchedGroup) -> bool:
            return bool(
                (members is None or _fits(group, members, None))
                and (size is None or len(group.members) == size)
                and (name is None or group.name == name)
                and (where is None or where(group))
            )

        return self._assert_group("batch", " ".join(["a batch", *told]), fits, times)

    def _assert_group(
        self, kind: str, what: str, fits: Callable[[DispatchedGroup], bool], times: int | None
    ) -> list[DispatchedGroup]:
        __tracebackhide__ = True
        there = [group for group in _all_groups(self.groups) if group.kind == kind]
        found, expected = [group for group in there if fits(group)], _times(times)
        if len(found) != expected if expected is not None else not found:
            was = f"{what} was dispatched {often(len(found))}" if found else f"{what} was not dispatched"
            should = "" if expected is None else f", expected {often(expected)}"
            seen = "".join(f"\n  {group}" for group in there) or f" no {kind}; {listing(self)}"
            raise AssertionError(f"{was}{should}; dispatched were{':' if there else ''}{seen}")
        return found


def _jobs(count: int) -> str:
    return "1 job was" if count == 1 else f"{count} jobs were"


def _check(members: Sequence[Any]) -> None:
    """Raise ``InvalidOption`` for what no member could be."""
    for each in members:
        if isinstance(each, (list, tuple)):
            _check(each)
        else:
            Expected(each, None, {})


def _named(members: Sequence[Any], between: str, name: str | None) -> str:
    shown = [
        f"({_named(each, ', ', None)})"
        if isinstance(each, (list, tuple))
        else each.__name__
        if isinstance(each, type)
        else repr(each)
        for each in members
    ]
    return (f"{name!r} " if name is not None else "") + between.join(shown)


def _fits(group: DispatchedGroup, members: Sequence[Any], name: str | None) -> bool:
    if (name is not None and group.name != name) or len(members) != len(group.members):
        return False
    for there, expected in zip(group.members, members, strict=True):
        if isinstance(there, DispatchedGroup):
            if not isinstance(expected, (list, tuple)) or not _fits(there, expected, None):
                return False
        elif isinstance(expected, (list, tuple)) or Expected(expected, None, {}).faults(there):
            return False
    return True


def _all_groups(groups: Sequence[DispatchedGroup]) -> Iterator[DispatchedGroup]:
    for group in groups:
        yield group
        yield from _all_groups([member for member in group.members if isinstance(member, DispatchedGroup)])
