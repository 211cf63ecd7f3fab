"""Writes, or checks, the dashboards' JSON and the provisioning: ``python -m grafana.generate [--check] [--namespace NS]``."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.files import run, yaml_text
from grafana import provisioning
from rf_jobs.telemetry.dashboards.every import DASHBOARDS, text_of


def files(namespace: str = "") -> dict[Path, str]:
    """Paths within the project, and what belongs there."""
    folder = Path("grafana")
    made = {folder / "dashboards" / f"{dashboard.uid}.json": text_of(dashboard, namespace) for dashboard in DASHBOARDS}
    source = "grafana/provisioning.py"
    made[folder / "provisioning/datasources/rf-jobs.yaml"] = yaml_text(provisioning.datasources(), source)
    made[folder / "provisioning/dashboards/rf-jobs.yaml"] = yaml_text(provisioning.dashboards(), source)
    return made


if __name__ == "__main__":
    sys.exit(run(__doc__ or "", files))
