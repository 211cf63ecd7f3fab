"""Importing the modules that define job classes, in the process that is to know them."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rf_jobs.model.jobclass import registry
from rf_jobs.words.errors import ConfigError

OURS = "rf_jobs:"
"""Begins the names of the job classes that rf-jobs has for itself."""


def import_modules(names: Sequence[str]) -> None:
    """Import them, from the working directory too. Raises ``ConfigError`` that names the module and the cause."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    for name in names:
        _import(name)


def require_jobs(modules: Sequence[str]) -> list[str]:
    """The names of all classes that an application has registered. Raises ``ConfigError`` where there is none."""
    names = [name for name in registry.names() if not name.startswith(OURS)]
    if not names:
        where = f"{', '.join(modules)} defines none" if modules else "no module was named"
        raise ConfigError(
            f"no job class is registered: {where}; name the modules that define them (rf-jobs worker myapp.jobs), or set imports in [jobs]"
        )
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
