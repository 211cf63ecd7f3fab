"""``rf-jobs rules``: what Prometheus is to compute and to watch."""

from __future__ import annotations

import re
from pathlib import Path

import click

from rf_jobs.cli import files, output
from rf_jobs.cli.options import common, setting_option
from rf_jobs.cli.session import Session
from rf_jobs.words.errors import InvalidOption

_URL = re.compile(r"https?://[^\s{}\"\\]+\Z")
HEAD = "# Made by `rf-jobs rules export`; make it again where something is to be different.\n"


@click.group
def rules() -> None:
    """Write Prometheus' recording and alert rules. Needs no server."""


@rules.command("export")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write to this file.  [default: stdout]")
@click.option(
    "--success-objective",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="The share of jobs that must not end dead; alerts tell how fast the rest is used up.  [default: 0.995]",
)
@click.option("--grafana-url", metavar="URL", help="Where the alerts' links to the dashboard lead.")
@click.option("--runbook-url", metavar="URL", help="The folder of the runbooks, docs/runbooks, where it is published.")
@setting_option("jobs.telemetry.metric_namespace")
@common()
def export_rules(
    session: Session, out: Path | None, success_objective: float | None, grafana_url: str | None, runbook_url: str | None
) -> None:  # fmt: skip
    """Write the recording rules and the alerts as Prometheus reads them (2.42 or later).

    Metrics have the names that `metric_namespace` in [jobs.telemetry] gives them. How late a queue may be is not in here:
    the exporter shows `queue_age_objective_seconds` as a metric, and the rules compare with that.
    """
    from rf_jobs.telemetry.rules.objectives import Objectives  # noqa: PLC0415 (--help needs none of it)
    from rf_jobs.telemetry.rules.rule_file import rules as rules_for  # noqa: PLC0415
    from rf_jobs.telemetry.rules.yaml_text import yaml_text  # noqa: PLC0415

    made = rules_for(
        Objectives(
            namespace=session.settings.telemetry.metric_namespace,
            success_objective=success_objective or Objectives.success_objective,
            grafana_url=_address("--grafana-url", grafana_url) or Objectives.grafana_url,
            runbook_url=_address("--runbook-url", runbook_url) or Objectives.runbook_url,
        )
    )
    if out is None and session.json:
        output.document(made)
        return
    text = HEAD + yaml_text(made)
    if out is None:
        click.echo(text, nl=False)
        return
    files.write(out, text)
    every = [rule for group in made["groups"] for rule in group["rules"]]
    alerts = sum("alert" in rule for rule in every)
    if session.json:
        output.document({"file": str(out), "recording_rules": len(every) - alerts, "alerts": alerts})
    else:
        click.echo(f"{out}: {len(every) - alerts} recording rules, {alerts} alerts")


def _address(option: str, url: str | None) -> str | None:
    if url is None:
        return None
    if not _URL.match(url):
        raise InvalidOption(f"{option} is {url!r}; give an address such as https://grafana.example.org")
    return url.rstrip("/")
