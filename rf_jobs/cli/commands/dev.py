"""``rf-jobs dev``: everything that development needs, in one command."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path

import click

from rf_jobs.cli import output
from rf_jobs.cli.commands.worker import supervise
from rf_jobs.cli.exits import Exit
from rf_jobs.cli.importing import import_jobs, require_jobs
from rf_jobs.cli.options import common, settings_options
from rf_jobs.cli.session import Session
from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.telemetry import logs
from rf_jobs.words.config import Settings, mask_url

DIRECTORY = Path(".rf-jobs") / "server"
STOP_SECONDS = 10.0


@click.command
@click.argument("modules", metavar="[MODULE]...", nargs=-1)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=DIRECTORY,
    show_default=True,
    help="Where the server keeps its data.",
)
@click.option("--exporter/--no-exporter", "with_exporter", default=True, help="Serve metrics too.  [default: exporter]")
@settings_options("jobs", "telemetry", "exporter", "worker", "security")
@common()
def dev(session: Session, modules: tuple[str, ...], directory: Path, with_exporter: bool) -> int:
    """Start an embedded server, a worker and an exporter, until Ctrl-C. For development only.

    The server keeps its data in --directory and finds it again at the next start. With --redis-url that server is used
    instead and none is started. Without MODULE there is no worker: start your own with the URL that is printed.
    """
    named = import_jobs(session, modules)
    if named:
        require_jobs(named)
    given = session.given("jobs.redis_url")
    with contextlib.ExitStack() as stack:
        if not given:
            other = session.loaded.entries["jobs.redis_url"]
            if other.origin.kind != "default":
                click.echo(f"note: redis_url from {other.origin} is not used; --redis-url would be", err=True)
            server = stack.enter_context(EmbeddedServer.start(directory))
            session.override("jobs.redis_url", server.url)
        settings = session.settings
        as_json = session.json or settings.telemetry.log_format == "json"
        logs.set_up(verbose=session.verbose, as_json=as_json)
        exporter_url = f"http://{settings.exporter.host}:{settings.exporter.port}/metrics" if with_exporter else None
        _announce(session, settings.jobs.redis_url, None if given else directory, exporter_url, named)
        if with_exporter:
            stack.enter_context(_exporter(session, settings))
        return supervise(settings) if named else _until_interrupted()


def _announce(session: Session, url: str, directory: Path | None, exporter_url: str | None, modules: list[str]) -> None:
    shown = mask_url(url)
    if session.json:
        output.document(
            {
                "redis_url": shown,
                "directory": directory and str(directory),
                "metrics_url": exporter_url,
                "modules": modules,
            }
        )
        return
    where = f"an embedded server with its data in {directory}" if directory else "the server that --redis-url names"
    click.echo(f"for development only: {where}")
    facts = [("use it", f"export RF_JOBS_REDIS_URL={shown}"), ("metrics", exporter_url or "off (--no-exporter)")]
    output.pairs(
        [*facts, ("worker", ", ".join(modules) if modules else "none; name modules, or run rf-jobs worker MODULE")]
    )
    click.echo("Ctrl-C ends it; the data stays")


@contextlib.contextmanager
def _exporter(session: Session, settings: Settings) -> Generator[None, None, None]:
    """An exporter as a process of its own. By variables, since arguments are seen by every user of the machine."""
    jobs, wanted = settings.jobs, settings.exporter
    variables = {
        "RF_JOBS_REDIS_URL": jobs.redis_url, "RF_JOBS_NAMESPACE": jobs.namespace, "RF_JOBS_EXPORTER_HOST": wanted.host,
        "RF_JOBS_EXPORTER_PORT": str(wanted.port),
    }  # fmt: skip
    command = [sys.executable, "-m", "rf_jobs", "exporter", "--exit-with-parent"]
    command += ["--config", session.config] if session.config else []
    env = {**os.environ, **variables}
    process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # noqa: S603 (ourselves)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_interrupted() -> int:
    """Wait for Ctrl-C or SIGTERM."""
    end = threading.Event()

    def stop(*_: object) -> None:
        end.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    end.wait()
    return Exit.OK
