"""A job class as the engine sees it, and the registry of them by their stable names.

Only registered classes can be instantiated: a payload names a class, it never says what to import.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from rf_jobs.words.errors import InvalidOption, UnknownJobClass
from rf_jobs.words.options import JobOptions

DYNAMIC = ("queue", "max_attempts", "backoff", "timeout", "priority", "unique_key", "tags")
"""The options that a class may override with a method of that name."""


@dataclass(frozen=True, eq=False)
class JobClass:
    """Facts about one class that would be too slow to find out for each job."""

    name: str
    type: type[Any]
    options: JobOptions
    version: int
    is_async: bool
    has_failed: bool
    dynamic: frozenset[str]

    @property
    def short_name(self) -> str:
        """The class's own name, for people."""
        return self.name.rpartition(":")[2].rpartition(".")[2]


def describe(cls: type[Any], name: str | None, version: int, options: JobOptions, base: type[Any]) -> JobClass:
    """The facts about ``cls``, a subclass of ``base``."""
    handle = inspect.getattr_static(cls, "handle")
    return JobClass(
        name=name or f"{cls.__module__}:{cls.__qualname__}",
        type=cls,
        options=options,
        version=version,
        is_async=inspect.iscoroutinefunction(handle),
        has_failed=cls.failed is not base.failed,
        dynamic=frozenset(m for m in DYNAMIC if getattr(cls, m) is not getattr(base, m)),
    )


class Registry:
    """Job classes by name."""

    def __init__(self) -> None:
        self._classes: dict[str, JobClass] = {}

    def add(self, entry: JobClass) -> None:
        """Register a class; the same class defined again (a reload, a test) takes the place of the first."""
        known = self._classes.get(entry.name)
        if known is not None and _origin(known) != _origin(entry):
            raise InvalidOption(
                f"two job classes have the name {entry.name!r}: {_origin(known)} and {_origin(entry)};"
                " give one of them another with name="
            )
        self._classes[entry.name] = entry

    def find(self, name: str) -> JobClass | None:
        """The class of this name, if it is known here."""
        return self._classes.get(name)

    def get(self, name: str) -> JobClass:
        """The class of this name; raises ``UnknownJobClass``."""
        found = self._classes.get(name)
        if found is None:
            raise UnknownJobClass(
                f"no job class is registered as {name!r}; import the module that defines it (known: "
                f"{', '.join(sorted(self._classes)) or 'none'})"
            )
        return found

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self._classes)

    def by_short_name(self, name: str) -> JobClass | None:
        """A class by its full name, or by its short one where that is unambiguous (for people at a terminal)."""
        exact = self._classes.get(name)
        if exact is not None:
            return exact
        found = [entry for entry in self._classes.values() if entry.short_name == name]
        return found[0] if len(found) == 1 else None


def _origin(entry: JobClass) -> str:
    return f"{entry.type.__module__}:{entry.type.__qualname__}"


registry = Registry()
"""Where defining a job class registers it."""
