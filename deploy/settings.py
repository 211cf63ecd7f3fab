"""What the rules and Prometheus' configuration depend on."""

from __future__ import annotations

from dataclasses import dataclass

JOB = "rf-jobs-exporter"
"""The scrape job of the exporter. Panels on processes select ``job=~"rf-jobs.*"``."""
WORKER_JOB = "rf-jobs-worker"
"""The scrape job of the workers, for what the exporter does not have: their processes, and the application's metrics."""


@dataclass(frozen=True)
class Settings:
    """Objectives, addresses, and where an alert's links lead."""

    namespace: str = ""
    success_objective: float = 0.995
    """Share of jobs that must not end dead."""
    cluster: str = "default"
    """Added to every series by the scrape configuration; the application never sets it."""
    exporter: str = "exporter:9440"
    worker: str = "worker:9441"
    """The page of a supervisor."""
    alertmanager: str = "alertmanager:9093"
    grafana_url: str = "http://localhost:3000"
    runbook_url: str = "https://rf-jobs.example/docs/runbooks"
    """The folder docs/runbooks, wherever it is published."""

    @property
    def error_budget(self) -> float:
        return round(1 - self.success_objective, 6)
