"""What the frameworks share: settings as a mapping in theirs, a manager for as long as an application serves, one for each
process of those that fork, and our commands inside theirs."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import click

from rf_jobs import sync
from rf_jobs.cli.app import guarded
from rf_jobs.cli.commands.outbox import relaying
from rf_jobs.cli.commands.worker import SETS, sets_option
from rf_jobs.cli.importing import named_modules
from rf_jobs.cli.options import common, settings_options
from rf_jobs.cli.session import Session
from rf_jobs.client.manager import QueueManager
from rf_jobs.client.outbox import OutboxSource
from rf_jobs.client.queue import configure_by_default
from rf_jobs.telemetry import logs, telemetry
from rf_jobs.words.config import load_settings
from rf_jobs.words.config_keys import KEYS, TABLES, did_you_mean
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.errors import ConfigError
from rf_jobs.worker.config import WorkerConfig
from rf_jobs.worker.supervisor import Supervisor

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
        self._lock = threading.Lock()
        self._pid = 0
        self._manager: sync.QueueManager | None = None

    def manager(self) -> sync.QueueManager:
        """This process's."""
        if self._manager is None or self._pid != os.getpid():
            with self._lock:
                if self._manager is None or self._pid != os.getpid():
                    manager = self._make()
                    manager.enter(lambda inside: telemetry(inside, inside.settings.telemetry))
                    self._manager, self._pid = manager, os.getpid()
        return self._manager

    def close(self) -> None:
        """Close this process's, if there is one; the next use makes another."""
        with self._lock:
            if self._manager is not None and self._pid == os.getpid():
                self._manager.close()
            self._manager = None


# --- commands -----------------------------------------------------------------------------------------------------------


def worker_command(base: Callable[[], dict[str, object]], equip: str) -> click.Command:
    """``rf-jobs worker`` inside a framework's command line: ``base`` is what its configuration says, which options
    override; ``equip`` names the function that each process calls first (see ``Supervisor``)."""

    @click.command("worker")
    @click.argument("modules", metavar="[MODULE]...", nargs=-1)
    @sets_option
    @settings_options("jobs", "telemetry", "worker", "security", skip=(SETS,))
    @common()
    def worker(session: Session, modules: tuple[str, ...]) -> int:
        """Run jobs, in supervised processes, until SIGTERM or Ctrl-C. MODULE... are imported in each, beside what the
        application imports."""
        settings = _settled(session, base)
        jobs = replace(settings.jobs, imports=tuple(named_modules(session, modules)))
        settings = replace(settings, jobs=jobs)
        return Supervisor(WorkerConfig(settings.worker), settings, equip=equip, page="rf_jobs.cli.page").run()

    return worker


def outbox_command(base: Callable[[], dict[str, object]], source: Callable[[], OutboxSource]) -> click.Command:
    """``rf-jobs outbox`` inside a framework's command line."""

    @click.command("outbox")
    @click.option("--durable", is_flag=True, help="Remove rows once the server has the jobs on its disk (AOF).")
    @settings_options("jobs", "telemetry", "security")
    @common()
    def outbox(session: Session, durable: bool) -> None:
        """Move jobs from the outbox to the server until SIGTERM or Ctrl-C."""
        settings = _settled(session, base)
        asyncio.run(relaying(settings, source(), durable=durable))

    return outbox


def _settled(session: Session, base: Callable[[], dict[str, object]]) -> Settings:
    given = {path: value for path, value in session.overrides.items() if value is not None}
    for path, value in {**base(), **given}.items():
        session.override(path, value)
    as_json = session.json or session.settings.telemetry.log_format == "json"
    logs.set_up(verbose=session.verbose, as_json=as_json)
    session.override("jobs.telemetry.log_format", "json" if as_json else "text")
    return session.settings


def run_command(command: click.Command, words: Sequence[str], name: str) -> None:
    """Run one of our commands and exit as ``rf-jobs`` does."""
    sys.exit(guarded(lambda: command.main(list(words), prog_name=name, standalone_mode=False), list(words)))
