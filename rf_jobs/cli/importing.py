"""Importing the modules that define job classes, as a person named them."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rf_jobs.cli.session import Session
from rf_jobs.model.jobclass import JobClass, registry
from rf_jobs.words.errors import ConfigError, UnknownJobClass


def import_jobs(session: Session, named: Sequence[str]) -> list[str]:
    """Import the modules that are named and those of the configuration (``imports``), from the working directory too.
    Answers with their names. Raises ``ConfigError`` that names the module and the cause."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    names = list(dict.fromkeys([*named, *session.settings.jobs.imports]))
    for name in names:
        _import(name)
    return names


def _import(name: str) -> None:
    if name.endswith(".py") or "/" in name:
        guess = name.removesuffix(".py").strip("./").replace("/", ".")
        raise ConfigError(f"{name!r} is a path; name the module as an import does: {guess}")
    try:
        import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"the module {name!r} was not found (no {error.name!r} in {Path.cwd()} or on Python's path);"
                " run this in your project's folder, or install the project"
            ) from error
        raise ConfigError(f"importing {name!r} failed{_place(error)}: {error}; install what it needs") from error
    except (Exception, SystemExit) as error:  # a module may do anything when it is imported
        raise ConfigError(f"importing {name!r} failed{_place(error)}: {type(error).__name__}: {error}") from error


def _place(error: BaseException) -> str:
    """Where in the module it happened: the last frame that is not the import system's."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if len(frames) > 1 else ""


def require_jobs(modules: Sequence[str]) -> list[str]:
    """The names of all registered classes. Raises ``ConfigError`` where there is none."""
    names = registry.names()
    if not names:
        where = f"{', '.join(modules)} defines none" if modules else "no module was named"
        raise ConfigError(
            f"no job class is registered: {where}; name the modules that define them (rf-jobs worker myapp.jobs), or set imports in [jobs]"
        )
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
