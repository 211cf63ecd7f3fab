"""Writes, or checks, the dashboards' JSON and the provisioning: ``python -m grafana.generate [--check] [--namespace NS]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from deploy.files import run, yaml_text
from grafana import overview, provisioning
from grafana.model import Dashboard

DASHBOARDS: tuple[Dashboard, ...] = (overview.DASHBOARD,)
"""Every dashboard; a new module adds its own here."""


def files(namespace: str = "") -> dict[Path, str]:
    """Paths within the project, and what belongs there."""
    folder = Path("grafana")
    made = {
        folder / "dashboards" / f"{dashboard.uid}.json": json.dumps(dashboard.json(namespace), indent=2) + "\n"
        for dashboard in DASHBOARDS
    }
    source = "grafana/provisioning.py"
    made[folder / "provisioning/datasources/rf-jobs.yaml"] = yaml_text(provisioning.datasources(), source)
    made[folder / "provisioning/dashboards/rf-jobs.yaml"] = yaml_text(provisioning.dashboards(), source)
    return made


if __name__ == "__main__":
    sys.exit(run(__doc__ or "", files))
