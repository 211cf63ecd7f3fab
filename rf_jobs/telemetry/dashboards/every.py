"""Every dashboard; a new module adds its own here."""

from __future__ import annotations

import json

from rf_jobs.telemetry.dashboards import overview
from rf_jobs.telemetry.dashboards.model import Dashboard

DASHBOARDS: tuple[Dashboard, ...] = (overview.DASHBOARD,)


def text_of(dashboard: Dashboard, namespace: str) -> str:
    """A dashboard's file."""
    return json.dumps(dashboard.json(namespace), indent=2) + "\n"
