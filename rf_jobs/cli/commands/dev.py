"""``rf-jobs dev``: everything that development needs, in one command."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping
from pathlib import Path

import click

from rf_jobs.cli import output
from rf_jobs.cli.commands.worker import SETS, sets_option, supervise
from rf_jobs.cli.exits import Exit
from rf_jobs.cli.following import hang_up_is_sigterm
from rf_jobs.cli.importing import import_jobs
from rf_jobs.cli.keeping import Kept
from rf_jobs.cli.options import common, settings_options
from rf_jobs.cli.session import Session
from rf_jobs.model.importing import require_jobs
from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.telemetry import logs
from rf_jobs.words.config import ExporterSettings, mask_url
from rf_jobs.words.config_keys import KEYS

DIRECTORY = Path(".rf-jobs") / "server"
START_SECONDS = 30.0
LOOK_SECONDS = 0.05


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
@sets_option
@settings_options("jobs", "telemetry", "exporter", "worker", "security", skip=(SETS,))
@common()
def dev(session: Session, modules: tuple[str, ...], directory: Path, with_exporter: bool) -> int:
    """Start an embedded server, a worker and an exporter, until Ctrl-C. For development only.

    The server ends with this command; it keeps its data in --directory and finds it again at the next start. With
    --redis-url that server is used instead and none is started. Without MODULE there is no worker: start your own with
    the URL that is printed.
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
            server = stack.enter_context(EmbeddedServer.start(directory, die_with_parent=True))
            session.override("jobs.redis_url", server.url)
        session.override("jobs.scheduler.enabled", value=True)
        settings = session.settings
        as_json = session.json or settings.telemetry.log_format == "json"
        logs.set_up(verbose=session.verbose, as_json=as_json)
        url, why_not = None, "--no-exporter"
        if with_exporter:
            url, why_not = stack.enter_context(_exporter(session, settings.exporter))
        _announce(session, settings.jobs.redis_url, None if given else directory, (url, why_not), named)
        hang_up_is_sigterm()
        if not named:
            return _until_interrupted()
        return supervise(settings, named, verbose=session.verbose, as_json=as_json)


def _announce(
    session: Session, url: str, directory: Path | None, exporter: tuple[str | None, str], modules: list[str]
) -> None:
    shown, (exporter_url, why_not) = mask_url(url), exporter
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
    facts = [("use it", f"export RF_JOBS_REDIS_URL={shown}"), ("metrics", exporter_url or f"off ({why_not})")]
    output.pairs(
        [*facts, ("worker", ", ".join(modules) if modules else "none; name modules, or run rf-jobs worker MODULE")]
    )
    click.echo("Ctrl-C ends it; the data stays")


@contextlib.contextmanager
def _exporter(session: Session, wanted: ExporterSettings) -> Generator[tuple[str | None, str]]:
    """An exporter as a process of its own; its URL, or None and why it has none."""
    port, why_not = _free(wanted.host, wanted.port)
    if why_not:
        yield None, why_not
        return
    command = [sys.executable, "-m", "rf_jobs", "exporter", "--exit-with-parent", str(os.getpid())]
    command += ["--config", session.config] if session.config else []
    command += ["--verbose"] if session.verbose else []
    env = {**os.environ, **_variables(session.overrides), KEYS["jobs.exporter.port"].variable: str(port)}
    if session.json:
        env[KEYS["jobs.telemetry.log_format"].variable] = "json"

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # noqa: S603 (ourselves)

    kept = Kept("the exporter", start)
    try:
        if _serves(kept.process, wanted.host, port):
            kept.watch()
            yield f"http://{wanted.host}:{port}/metrics", ""
        else:
            code = kept.process.poll()
            yield None, f"it does not answer on port {port}" if code is None else f"it ended with exit code {code}"
    finally:
        kept.close()


def _variables(overrides: Mapping[str, object]) -> dict[str, str]:
    """The options as variables, since arguments are seen by every user of the machine."""
    given = {KEYS[path].variable: value for path, value in overrides.items() if value is not None}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}


def _free(host: str, port: int) -> tuple[int, str]:
    """The port, a free one for 0; and what is wrong with it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as probe:
            return int(probe.getsockname()[1]), ""
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error  # its own text names the address again
        return port, f"{host}:{port}: {why}; --port 0 takes any that is free"


def _serves(process: subprocess.Popen[bytes], host: str, port: int) -> bool:
    """Wait until it does, or has ended. Nobody else had its port a moment ago."""
    give_up = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < give_up:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1.0):
            return True
        time.sleep(LOOK_SECONDS)
    return False


def _until_interrupted() -> int:
    """Wait for Ctrl-C or SIGTERM."""
    end = threading.Event()

    def stop(*_: object) -> None:
        end.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    end.wait()
    return Exit.OK
