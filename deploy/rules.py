"""Prometheus' configuration, as data."""

from __future__ import annotations

from typing import Any

from deploy.settings import WORKER_JOB, Settings
from rf_jobs.telemetry.names import BUILD_INFO, measured_by, metric_name
from rf_jobs.telemetry.rules.objectives import JOB


def configuration(settings: Settings) -> dict[str, Any]:
    """``prometheus.yml``. The exporter has what jobs do, of the whole fleet; of a worker's page only the rest is kept, or every
    sum would be double."""
    return {
        "global": {"scrape_interval": "15s", "scrape_timeout": "10s", "evaluation_interval": "15s"},
        "rule_files": ["rules.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [settings.alertmanager]}]}]},
        "scrape_configs": [
            _scrape(JOB, settings.exporter, settings),
            {
                **_scrape(WORKER_JOB, settings.worker, settings),
                "metric_relabel_configs": [
                    {
                        "source_labels": ["__name__"],
                        "regex": shown_by_the_exporter(settings.namespace),
                        "action": "drop",
                    }
                ],
            },
        ],
    }


def _scrape(job: str, target: str, settings: Settings) -> dict[str, Any]:
    static = [{"targets": [target], "labels": {"cluster": settings.cluster}}]
    return {"job_name": job, "static_configs": static}


def shown_by_the_exporter(namespace: str = "") -> str:
    """A pattern of the samples that a worker's page has and the exporter has too. Prometheus anchors it."""
    metrics = [*measured_by("worker", "dispatcher", "scheduler"), BUILD_INFO]
    return "|".join(metric_name(name, namespace) for metric in metrics for name in metric.series)
