"""Batch consumers: a class whose ``handle_many`` runs several of its jobs in one call.

What it returns is said for each job: a value is its result, an exception how it failed (``Retry``, ``Snooze``, ``Discard``
and ``Fail`` too). Such a class gets a ``handle`` that runs one job as a crowd of one, for whoever runs jobs one by one.
"""

from __future__ import annotations

import inspect
from typing import Any

from rf_jobs.words.control import Fail
from rf_jobs.words.errors import InvalidOption
from rf_jobs.words.options import JobOptions


async def _alone(self: Any, ctx: Any) -> Any:
    return _only(verdicts(await type(self).handle_many([self], [ctx]), 1, type(self).__qualname__))


def _alone_in_thread(self: Any, ctx: Any) -> Any:
    return _only(verdicts(type(self).handle_many([self], [ctx]), 1, type(self).__qualname__))


def _only(found: list[Any]) -> Any:
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def adopt(cls: type[Any]) -> None:
    """Give a class with ``handle_many`` its ``handle``. Raises ``InvalidOption`` where it has one already, or where
    ``handle_many`` is a method of a single job."""
    if not hasattr(cls, "handle_many"):
        return
    kind = inspect.getattr_static(cls, "handle_many")
    if not isinstance(kind, (classmethod, staticmethod)):
        raise InvalidOption(
            f"handle_many of class {cls.__qualname__} is a method of one job; make it a @classmethod:"
            " `async def handle_many(cls, jobs, ctxs)`"
        )
    own = inspect.getattr_static(cls, "handle", None)
    if own not in (None, _alone, _alone_in_thread):
        raise InvalidOption(
            f"class {cls.__qualname__} has both handle and handle_many; its jobs run one by one or together, so keep one"
        )
    cls.handle = _alone if inspect.iscoroutinefunction(inspect.unwrap(cls.handle_many)) else _alone_in_thread


def check(cls: type[Any], options: JobOptions, *, asked: bool, abstract: bool) -> None:
    """Whether the options fit. ``asked``: many or many_wait was given with this class. Raises ``InvalidOption``."""
    together = hasattr(cls, "handle_many")
    if asked and not together and not abstract:
        raise InvalidOption(
            f"class {cls.__qualname__} has many or many_wait, but no handle_many(cls, jobs, ctxs); define it, or leave"
            " them out"
        )
    if together and options.executor == "process":
        raise InvalidOption(
            f"class {cls.__qualname__} has handle_many and executor='process'; a process of its own runs one job:"
            " use handle, or leave executor out"
        )


def verdicts(value: Any, count: int, name: str) -> list[Any]:
    """What ``handle_many`` said of each of ``count`` jobs: a result or an exception. After an answer of another form none is
    tried again: the work is done, and nobody can tell which of it."""
    if value is None:
        return [None] * count
    if isinstance(value, (list, tuple)) and len(value) == count:
        return list(value)
    what = f"{len(value)} values" if isinstance(value, (list, tuple)) else f"a {type(value).__qualname__}"
    told = f"handle_many of {name} returned {what} for {count} jobs; return None, or one value for each"
    return [Fail(told) for _ in range(count)]
