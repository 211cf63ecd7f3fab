"""Prometheus' configuration and rule file, as data."""

from __future__ import annotations

from typing import Any

from deploy.alerts import alerts
from deploy.recording import ERROR_RATIOS, QUEUES
from deploy.settings import JOB, Settings


def rules(settings: Settings) -> dict[str, Any]:
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


def configuration(settings: Settings) -> dict[str, Any]:
    """``prometheus.yml``: one target, the exporter; workers' own ``/metrics`` would count everything twice."""
    return {
        "global": {"scrape_interval": "15s", "scrape_timeout": "10s", "evaluation_interval": "15s"},
        "rule_files": ["rules.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [settings.alertmanager]}]}]},
        "scrape_configs": [
            {
                "job_name": JOB,
                "static_configs": [{"targets": [settings.exporter], "labels": {"cluster": settings.cluster}}],
            }
        ],
    }
