"""``rf-jobs grafana``: the dashboards."""

from __future__ import annotations

from pathlib import Path

import click

from rf_jobs.cli import files, output
from rf_jobs.cli.options import common, setting_option
from rf_jobs.cli.session import Session
from rf_jobs.words.errors import InvalidOption


@click.group
def grafana() -> None:
    """Write Grafana's dashboards. Needs no server."""


@grafana.command("export")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", required=True, help="The folder to write them to."
)
@setting_option("jobs.telemetry.metric_namespace")
@common()
def export_dashboards(session: Session, out: Path) -> None:
    """Write the dashboards as JSON, a file for each, to be imported or provisioned.

    Metrics have the names that `metric_namespace` in [jobs.telemetry] gives them. The Queues panel shows series of
    `rf-jobs rules export`.
    """
    from rf_jobs.telemetry.dashboards.every import DASHBOARDS, text_of  # noqa: PLC0415 (--help needs none of it)

    if not out.is_dir():
        what = "is no folder" if out.exists() else "does not exist"
        raise InvalidOption(f"--out: {str(out)!r} {what}; make the folder first, or name another")
    namespace = session.settings.telemetry.metric_namespace
    made = {out / f"{dashboard.uid}.json": dashboard for dashboard in DASHBOARDS}
    for path, dashboard in made.items():
        files.write(path, text_of(dashboard, namespace))
    if session.json:
        output.document({"dashboards": [{"file": str(path), "title": each.title} for path, each in made.items()]})
        return
    for path, dashboard in made.items():
        click.echo(f"{path}: {dashboard.title}")
