"""The settings as a list of keys, read off the dataclasses: each with its table, variable, type and default."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from msgspec import Meta

from rf_jobs.words.config_settings import SECRET, Settings

PREFIX = "RF_JOBS_"


@dataclass(frozen=True, slots=True)
class Key:
    """One setting, e.g. ``processes`` of the section ``worker``."""

    section: str
    name: str
    annotation: Any
    default: object

    @property
    def table(self) -> str:
        """The table of the file: ``jobs``, or ``jobs.worker``."""
        return "jobs" if self.section == "jobs" else f"jobs.{self.section}"

    @property
    def path(self) -> str:
        """The whole name: ``jobs.worker.processes``."""
        return f"{self.table}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable: ``RF_JOBS_WORKER_PROCESSES``, without the section for those of ``[jobs]``."""
        section = "" if self.section == "jobs" else f"{self.section}_"
        return f"{PREFIX}{section}{self.name}".upper()

    @property
    def description(self) -> str:
        """What it is for, in a phrase."""
        notes = [arg.description for arg in get_args(self.annotation) if isinstance(arg, Meta) and arg.description]
        return notes[-1] if notes else ""

    @property
    def is_secret(self) -> bool:
        """Whether it holds keys."""
        return any(isinstance(arg, Meta) and arg.extra == SECRET for arg in get_args(self.annotation))


def _keys() -> Iterable[Key]:
    for section, settings in get_type_hints(Settings).items():
        hints = get_type_hints(settings, include_extras=True)
        for field in dataclasses.fields(settings):
            yield Key(section, field.name, hints[field.name], field.default)


KEYS: dict[str, Key] = {key.path: key for key in _keys()}
"""All keys by path, in the order of the tables."""

TABLES: dict[str, type] = {
    "jobs" if section == "jobs" else f"jobs.{section}": settings
    for section, settings in get_type_hints(Settings).items()
}

VARIABLES: dict[str, Key] = {key.variable: key for key in KEYS.values()}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` ; did you mean 'x'?`` for the nearest of ``known``, else all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, 1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"


def hint_for(table: str, name: str) -> str:
    """What was probably meant by the unknown key ``name`` of ``table``."""
    siblings = [key.name for key in KEYS.values() if key.table == table]
    near = difflib.get_close_matches(name, siblings, 1)
    if near:
        return f"did you mean {near[0]!r}?"
    elsewhere = [key.table for key in KEYS.values() if key.name == name]
    if elsewhere:
        return f"it is a key of [{'] and ['.join(elsewhere)}]"
    return f"known are {', '.join(siblings)}"
