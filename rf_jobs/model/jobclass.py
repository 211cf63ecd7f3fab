"""A job class as the engine sees it, and the registry of them by their stable names.

Only registered classes can be instantiated: a payload names a class, it never says what to import.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rf_jobs.model.sealing import Sealing, sealing_of
from rf_jobs.words import options as checks
from rf_jobs.words.errors import InvalidOption, UnknownJobClass
from rf_jobs.words.options import JobOptions, Many

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
    aliases: tuple[str, ...] = ()
    """Names that the class had before: payloads under them are its own."""
    many: Many | None = None
    """How its jobs are gathered for ``handle_many``; None of a class whose jobs run one by one."""

    @property
    def short_name(self) -> str:
        """The class's own name, for people."""
        return self.name.rpartition(":")[2].rpartition(".")[2]

    @cached_property
    def sealing(self) -> Sealing | None:
        """What of its jobs is sealed; None where nothing is. Raises ``InvalidOption``."""
        return sealing_of(self.type, whole=self.options.encrypt)

    @cached_property
    def asks(self) -> bool:
        """Whether its jobs ask the store for more than a place in a queue: limits, turns, uniqueness. Most do not."""
        o = self.options
        return bool(o.concurrency or o.rate or o.limits or o.fair_key) or o.unique_for is not None

    def hides(self, field: str) -> bool:
        """Whether this field of a job is shown to nobody; where that can't be known, it is."""
        try:
            sealing = self.sealing
        except InvalidOption:
            return True
        return sealing is not None and sealing.hides(field)


def describe(
    cls: type[Any], name: str | None, version: int, options: JobOptions, base: type[Any], aliases: object = ()
) -> JobClass:
    """The facts about ``cls``, a subclass of ``base``. Raises ``InvalidOption`` for aliases that can't be."""
    handle = inspect.getattr_static(cls, "handle")
    name = checks.text(name or f"{cls.__module__}:{cls.__qualname__}", f"name of class {cls.__qualname__}")
    return JobClass(
        name=name,
        type=cls,
        options=options,
        version=version,
        is_async=inspect.iscoroutinefunction(handle),
        has_failed=cls.failed is not base.failed,
        dynamic=frozenset(m for m in DYNAMIC if getattr(cls, m) is not getattr(base, m)),
        aliases=_aliases(aliases, name),
        many=options.gathering if hasattr(cls, "handle_many") else None,
    )


def _aliases(given: object, name: str) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InvalidOption(
            f"aliases of the job class {name!r} is {given!r}; give a sequence of names: aliases=({given!r},)"
        )
    names = tuple(dict.fromkeys(given))
    for alias in names:
        if not isinstance(alias, str) or not alias:
            raise InvalidOption(
                f"the job class {name!r} has the alias {alias!r}; an alias is a name it had before, as text"
            )
        if alias == name:
            raise InvalidOption(f"the job class {name!r} has its own name as an alias; leave it out")
    return names


class Registry:
    """Job classes by name."""

    def __init__(self) -> None:
        self._classes: dict[str, JobClass] = {}
        self._known: dict[str, JobClass] = {}
        """By their names and by their aliases."""
        self.changes = 0
        """How often a class was registered: whoever tells others what is known here compares."""

    def add(self, entry: JobClass) -> None:
        """Register a class; the same class defined again (a reload, a test) takes the place of the first.

        Raises ``InvalidOption`` where another class has its name, or one of its aliases, as a name or an alias."""
        for name in (entry.name, *entry.aliases):
            known = self._known.get(name)
            if known is not None and _origin(known) != _origin(entry):
                raise InvalidOption(_collision(name, known, entry))
        before = self._classes.get(entry.name)
        for alias in before.aliases if before is not None else ():
            del self._known[alias]
        for alias in entry.aliases:
            self._classes.pop(alias, None)  # the same class, before it got another name
        self._classes[entry.name] = entry
        self._known.update(dict.fromkeys((entry.name, *entry.aliases), entry))
        self.changes += 1

    def find(self, name: str) -> JobClass | None:
        """The class that has, or had, this name, if it is known here."""
        return self._known.get(name)

    def get(self, name: str) -> JobClass:
        """The class that has, or had, this name; raises ``UnknownJobClass``."""
        found = self._known.get(name)
        if found is None:
            raise UnknownJobClass(
                f"no job class is registered as {name!r}; import the module that defines it (known: "
                f"{', '.join(sorted(self._classes)) or 'none'})"
            )
        return found

    def names(self) -> list[str]:
        """All registered names, sorted; aliases are not among them."""
        return sorted(self._classes)


def _collision(name: str, known: JobClass, entry: JobClass) -> str:
    both = f"{_origin(known)} and {_origin(entry)}"
    if known.name == entry.name == name:
        return f"two job classes have the name {name!r}: {both}; give one of them another with name="
    parts = [f"{_origin(each)} has it as {'its name' if each.name == name else 'an alias'}" for each in (known, entry)]
    return f"two job classes answer to {name!r}: {parts[0]}, {parts[1]}; take the alias from one of them"


def _origin(entry: JobClass) -> str:
    return f"{entry.type.__module__}:{entry.type.__qualname__}"


registry = Registry()
"""Where defining a job class registers it."""
