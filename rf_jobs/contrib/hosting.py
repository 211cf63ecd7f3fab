"""What the frameworks share: settings as a mapping in theirs, a manager for as long as an application serves, and one for each
process of those that fork."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from rf_jobs import sync
from rf_jobs.client.manager import QueueManager
from rf_jobs.client.queue import configure_by_default
from rf_jobs.telemetry import telemetry
from rf_jobs.words.config import load_settings
from rf_jobs.words.config_keys import KEYS, TABLES, did_you_mean
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.errors import ConfigError

# --- settings -----------------------------------------------------------------------------------------------------------


def overrides(given: Mapping[str, Any], where: str) -> dict[str, object]:
    """A framework's mapping as settings by path. It is laid out as the file's table ``[jobs]`` is:
    ``{"redis_url": ..., "worker": {"queues": [...]}}``. Raises ``ConfigError`` that says ``where`` the fault is."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where} is {given!r}; give a mapping, such as {{'redis_url': 'redis://127.0.0.1:6379/0'}}")
    found: dict[str, object] = {}
    for name, value in given.items():
        table = f"jobs.{name}"
        inner: Mapping[str, object] = {table: value}
        if table in TABLES:
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where}[{name!r}] is {value!r}; give a mapping")
            inner = {f"{table}.{key}": each for key, each in value.items()}
        for path, each in inner.items():
            if path not in KEYS:
                raise ConfigError(f"{where} has the unknown setting {path.removeprefix('jobs.')!r}; {_near(path)}")
            found[path] = tuple(each) if isinstance(each, list) else each
    return found


def _near(path: str) -> str:
    known = [name.removeprefix("jobs.") for name in [*KEYS, *TABLES] if name != "jobs"]
    return did_you_mean(path.removeprefix("jobs."), known)


def settings_of(given: Mapping[str, Any], where: str) -> Settings:
    """The effective settings: what the framework's mapping leaves out comes from variables, the file, and the defaults.
    Raises ``ConfigError``."""
    return load_settings(overrides=overrides(given, where)).settings


# --- managers -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(target: str | Settings | QueueManager | None = None) -> AsyncGenerator[QueueManager, None]:
    """A manager with telemetry while the context lasts, which ``Queue`` uses too unless ``rf_jobs.configure`` was called.
    One that is given stays open. Raises ``BackendError`` where its server cannot be used, or ``ConfigError``."""
    if isinstance(target, QueueManager):
        configure_by_default(target)
        yield target
        return
    async with QueueManager(target) as manager, telemetry(manager, manager.settings.telemetry):
        configure_by_default(manager)
        yield manager


class PerProcess:
    """A synchronous manager with telemetry, made by each process at its first use: a server that forks after it has loaded
    the application shares none."""

    def __init__(self, make: Callable[[], sync.QueueManager]) -> None:
        self._make = make
        self._manager: sync.QueueManager | None = None
        self._lock = threading.Lock()
        _all.add(self)

    def manager(self) -> sync.QueueManager:
        """This process's."""
        with self._lock:
            if self._manager is None:
                manager = self._make()
                manager.enter(lambda inside: telemetry(inside, inside.settings.telemetry))
                self._manager = manager
            return self._manager

    def close(self) -> None:
        """Close this process's, if there is one; the next use makes another."""
        with self._lock:
            manager, self._manager = self._manager, None
        if manager is not None:
            manager.close()

    def forked(self) -> None:
        """In a child: nothing is there yet."""
        self._lock = threading.Lock()  # a thread of the parent may have held it
        self._manager = None


_all: weakref.WeakSet[PerProcess] = weakref.WeakSet()


def _after_fork() -> None:
    for each in _all:
        each.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
