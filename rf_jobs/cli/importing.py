"""Importing the modules that define job classes, as a person named them, and finding a class in them."""

from __future__ import annotations

from collections.abc import Sequence

from rf_jobs.cli.session import Session
from rf_jobs.model.importing import import_modules
from rf_jobs.model.jobclass import JobClass, registry
from rf_jobs.words.errors import UnknownJobClass
from rf_jobs.words.options import text


def named_modules(session: Session, named: Sequence[str]) -> list[str]:
    """The modules that are named and those of the configuration (``imports``), each once. Raises ``InvalidOption``."""
    return list(dict.fromkeys([*(text(name, "a module") for name in named), *session.settings.jobs.imports]))


def import_jobs(session: Session, named: Sequence[str]) -> list[str]:
    """Import these modules, from the working directory too, and answer with their names. Raises ``ConfigError``."""
    names = named_modules(session, named)
    import_modules(names)
    return names


def find_class(name: str) -> JobClass:
    """A class by its registered name or by the last part of it, or as it is called in Python.

    Raises ``UnknownJobClass`` for an unknown or ambiguous one.
    """
    entries = [registry.get(full) for full in registry.names()]
    found = [entry for entry in entries if entry.name == name] or [
        entry for entry in entries if name in (entry.short_name, entry.type.__name__)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(entry.name for entry in found)
        raise UnknownJobClass(f"{name!r} is the name of {len(found)} job classes; give the full one: {names}")
    known = ", ".join(registry.names()) or "none"
    raise UnknownJobClass(f"no job class is called {name!r} (known: {known}); import its module with --import")
