"""Writes, or checks, everything made from code: ``python -m deploy.generate [--check] [--namespace NS] [--into DIR]``.

Prometheus' configuration, rules and their tests, Grafana's dashboards and provisioning, the page of metrics.
"""

from __future__ import annotations

import sys
from pathlib import Path

from deploy import metrics_page, rule_tests, rules
from deploy.files import run, yaml_text
from deploy.settings import Settings
from grafana.generate import files as grafana_files
from rf_jobs.telemetry.rules import rule_file


def files(namespace: str = "") -> dict[Path, str]:
    """Paths within the project, and what belongs there."""
    settings = Settings(namespace=namespace)
    folder = Path("deploy/prometheus")
    return {
        folder / "prometheus.yml": yaml_text(rules.configuration(settings), "deploy/rules.py"),
        folder / "rules.yml": yaml_text(rule_file.rules(settings), "rf_jobs/telemetry/rules/"),
        folder / "tests.yml": yaml_text(rule_tests.tests(settings), "deploy/rule_tests.py"),
        Path("docs/operations/metrics.md"): metrics_page.page(namespace),
        **grafana_files(namespace),
    }


if __name__ == "__main__":
    sys.exit(run(__doc__ or "", files))
