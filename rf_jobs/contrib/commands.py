"""Our commands inside the frameworks' own: the same options, exit codes and logs, and the framework's settings below them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import click

from rf_jobs.cli.app import guarded
from rf_jobs.cli.commands.outbox import relaying
from rf_jobs.cli.commands.worker import SETS, sets_option
from rf_jobs.cli.importing import named_modules
from rf_jobs.cli.options import common, settings_options
from rf_jobs.cli.session import Session
from rf_jobs.client.outbox import OutboxSource
from rf_jobs.telemetry import logs
from rf_jobs.words.config_settings import Settings
from rf_jobs.worker.config import WorkerConfig
from rf_jobs.worker.supervisor import Supervisor


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
