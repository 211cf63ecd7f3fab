"""What the rules depend on."""

from __future__ import annotations

from dataclasses import dataclass

JOB = "rf-jobs-exporter"
"""The scrape job of the exporter. Panels on processes select ``job=~"rf-jobs.*"``."""


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """What is promised, what the metrics are called, and where an alert's links lead."""

    namespace: str = ""
    """The prefix of all metrics: ``metric_namespace`` in ``[jobs.telemetry]``."""
    success_objective: float = 0.995
    """Share of jobs that must not end dead."""
    grafana_url: str = "http://localhost:3000"
    runbook_url: str = "https://rf-jobs.example/docs/runbooks"
    """The folder docs/runbooks, wherever it is published."""

    @property
    def error_budget(self) -> float:
        return round(1 - self.success_objective, 6)
