"""``rf-jobs exporter``: metrics and health over HTTP."""

from __future__ import annotations

import os
import signal
import threading

import click

from rf_jobs.cli import output
from rf_jobs.cli.options import common, settings_options
from rf_jobs.cli.session import Session
from rf_jobs.telemetry import logs

LOOK_SECONDS = 1.0


@click.command
@click.option("--exit-with-parent", is_flag=True, hidden=True)
@settings_options("telemetry", "exporter", "security")
@common()
def exporter(session: Session, exit_with_parent: bool) -> None:
    """Serve /metrics, /healthz and /readyz until SIGTERM or Ctrl-C."""
    settings = session.settings
    logs.set_up(verbose=session.verbose, as_json=session.json or settings.telemetry.log_format == "json")
    if exit_with_parent:
        threading.Thread(target=_follow, args=(os.getppid(),), name="rf-jobs-parent", daemon=True).start()
    from rf_jobs_exporter.app import run  # noqa: PLC0415 (aiohttp is loaded by nothing else)

    run(settings)
    if session.json:
        output.document({"exit_code": 0})


def _follow(parent: int) -> None:
    """End in order when the process that started us is gone."""
    pause = threading.Event()
    while os.getppid() == parent:
        pause.wait(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
