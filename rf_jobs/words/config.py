"""Settings: defaults, overridden by a file, overridden by ``RF_JOBS_*`` variables, overridden by arguments.

The file is ``rf-jobs.toml``, else ``config/default.toml``, else ``[tool.rf-jobs]`` in ``pyproject.toml``, each in the
working directory; an argument or ``RF_JOBS_CONFIG`` names another. Nothing is merged between files. The keys stand in
``config_settings``; an unknown key, table or variable is an error, and so is a value that does not fit, wherever it
stands.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

from rf_jobs.words.config_files import FILE_VARIABLE, find_source, from_environ
from rf_jobs.words.config_keys import KEYS, Key, did_you_mean
from rf_jobs.words.config_secrets import mask_url
from rf_jobs.words.config_settings import (
    ExporterSettings,
    JobsSettings,
    SchedulerSettings,
    SecuritySettings,
    Settings,
    TelemetrySettings,
    WorkerSettings,
)
from rf_jobs.words.config_values import convert, shown_of
from rf_jobs.words.errors import ConfigError

__all__ = [
    "FILE_VARIABLE",
    "Entry",
    "ExporterSettings",
    "JobsSettings",
    "Loaded",
    "Origin",
    "SchedulerSettings",
    "SecuritySettings",
    "Settings",
    "TelemetrySettings",
    "WorkerSettings",
    "load_settings",
    "mask_url",
]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from; ``name`` is the file's path or the variable."""

    kind: Literal["default", "file", "variable", "argument"]
    name: str = ""

    def __str__(self) -> str:
        return self.name or self.kind


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with its effective value."""

    key: Key
    value: object
    origin: Origin

    @property
    def shown(self) -> str:
        """The value as text that may be printed: secrets are masked."""
        return shown_of(self.key, self.value)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and for each key its value and where that came from."""

    settings: Settings
    entries: Mapping[str, Entry]
    """By path (``jobs.worker.processes``), in the order of the tables."""
    path: Path | None
    """The file that was read, if any."""


def load_settings(
    path: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Loaded:
    """The effective settings.

    ``overrides`` are arguments by path (``{"jobs.worker.processes": 2}``), as values or as text; ``None`` stands for one
    that was not given. Raises ``ConfigError`` for whatever is unknown, malformed or out of range.
    """
    environ = os.environ if environ is None else environ
    source = find_source(None if path is None else Path(path), environ)
    given: dict[str, Entry] = {}

    def take(key: Key, value: object, origin: Origin) -> None:
        given[key.path] = Entry(key, convert(key, value, str(origin)), origin)

    if source is not None:
        for key, value in source.values():
            take(key, value, Origin("file", str(source.path)))
    for key, value in from_environ(environ):
        take(key, value, Origin("variable", key.variable))
    for name, value in (overrides or {}).items():
        if name not in KEYS:
            raise ConfigError(f"the argument {name!r} is no setting; {did_you_mean(name, KEYS)}")
        if value is not None:
            take(KEYS[name], value, Origin("argument"))

    entries = {name: given.get(name) or Entry(key, key.default, Origin("default")) for name, key in KEYS.items()}
    _queues_or_sets(entries)
    queues = entries["jobs.worker.queues"]
    if not queues.value:
        entries["jobs.worker.queues"] = Entry(queues.key, (entries["jobs.default_queue"].value,), queues.origin)
    return Loaded(_settings(entries), entries, source.path if source else None)


def _queues_or_sets(entries: dict[str, Entry]) -> None:
    """With sets each has its own queues: of the two settings the one that overrides stays. Raises ``ConfigError`` where
    neither does."""
    queues, sets = entries["jobs.worker.queues"], entries["jobs.worker.sets"]
    if not (queues.value and sets.value):
        return
    order = ("default", "file", "variable", "argument")
    first, second = order.index(queues.origin.kind), order.index(sets.origin.kind)
    if first == second:
        raise ConfigError(
            f"both jobs.worker.queues (from {queues.origin}) and jobs.worker.sets (from {sets.origin}) are given;"
            " with sets each has its own queues: leave one of the two out"
        )
    weaker = queues if first < second else sets
    entries[weaker.key.path] = Entry(weaker.key, weaker.key.default, Origin("default"))


def _settings(entries: Mapping[str, Entry]) -> Settings:
    sections: dict[str, Any] = {}
    for section, kind in get_type_hints(Settings).items():
        values = {entry.key.name: entry.value for entry in entries.values() if entry.key.section == section}
        sections[section] = kind(**values)
    return Settings(**sections)
