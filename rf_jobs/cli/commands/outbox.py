"""``rf-jobs outbox``: moves jobs from a database's table to the server."""

from __future__ import annotations

import asyncio
import signal
from importlib import import_module

import click

from rf_jobs.cli import output
from rf_jobs.cli.importing import import_jobs
from rf_jobs.cli.options import common, settings_options
from rf_jobs.cli.session import Session
from rf_jobs.client.manager import QueueManager
from rf_jobs.client.outbox import OutboxSource
from rf_jobs.telemetry import logs, telemetry
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.errors import ConfigError
from rf_jobs.worker.relay import Relay


@click.command
@click.argument("source", metavar="MODULE:NAME")
@click.option("--durable", is_flag=True, help="Remove rows once the server has the jobs on its disk (AOF).")
@settings_options("jobs", "telemetry", "security")
@common()
def outbox(session: Session, source: str, durable: bool) -> None:
    """Move jobs from an outbox to the server until SIGTERM or Ctrl-C.

    MODULE:NAME is the outbox's source, such as shop.db:source for `source = outbox.source(engine)`. Several may run.
    """
    settings = session.settings
    logs.set_up(verbose=session.verbose, as_json=session.json or settings.telemetry.log_format == "json")
    asyncio.run(relaying(settings, _source(session, source), durable=durable))
    if session.json:
        output.document({"exit_code": 0})


def _source(session: Session, named: str) -> OutboxSource:
    module, _, name = named.partition(":")
    if not module or not name:
        raise ConfigError(f"{named!r} names no object; give MODULE:NAME, such as shop.db:source")
    import_jobs(session, [module])
    found = getattr(import_module(module), name, None)
    if not isinstance(found, OutboxSource):
        raise ConfigError(f"{named} is {found!r}; give the source of an outbox, such as outbox.source(engine)")
    return found


async def relaying(settings: Settings, source: OutboxSource, *, durable: bool) -> None:
    """Relay until SIGTERM or SIGINT. Raises ``BackendError`` where the server cannot be used at the start."""
    loop = asyncio.get_running_loop()
    async with QueueManager(settings) as manager, telemetry(manager, settings.telemetry):
        relay = Relay(manager, source, durable=durable)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, relay.stop)
        await relay.run()
