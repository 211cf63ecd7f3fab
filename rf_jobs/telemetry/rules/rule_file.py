"""Prometheus' rule file, as data and as text."""

from __future__ import annotations

from typing import Any

from rf_jobs.telemetry.rules.alerts import alerts
from rf_jobs.telemetry.rules.objectives import Objectives
from rf_jobs.telemetry.rules.recording import ERROR_RATIOS, QUEUES


def rules(settings: Objectives) -> dict[str, Any]:
    """The rule file. The long windows are computed less often: they move slowly and read a lot."""
    every = [alert.rule(settings) for alert in alerts(settings)]
    return {
        "groups": [
            {"name": "rf-jobs-queues", "rules": [each.rule(settings.namespace) for each in QUEUES]},
            {
                "name": "rf-jobs-error-ratios",
                "interval": "1m",
                "rules": [each.rule(settings.namespace) for each in ERROR_RATIOS],
            },
            {"name": "rf-jobs-alerts", "rules": every},
        ]
    }
