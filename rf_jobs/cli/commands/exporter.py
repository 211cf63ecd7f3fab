"""``rf-jobs exporter``: metrics and health over HTTP."""

from __future__ import annotations

import click

from rf_jobs.cli import output
from rf_jobs.cli.following import exit_with_parent, follow
from rf_jobs.cli.options import common, settings_options
from rf_jobs.cli.session import Session
from rf_jobs.telemetry import logs


@click.command
@exit_with_parent
@settings_options("telemetry", "exporter", "security")
@common()
def exporter(session: Session, parent: int | None) -> None:
    """Serve /metrics, /healthz and /readyz until SIGTERM or Ctrl-C."""
    settings = session.settings
    logs.set_up(verbose=session.verbose, as_json=session.json or settings.telemetry.log_format == "json")
    follow(parent)
    from rf_jobs_exporter.app import run  # noqa: PLC0415 (aiohttp is loaded by nothing else)

    run(settings)
    if session.json:
        output.document({"exit_code": 0})
