"""What the rules and Prometheus' configuration depend on."""

from __future__ import annotations

from dataclasses import dataclass

from rf_jobs.telemetry.rules.objectives import Objectives

WORKER_JOB = "rf-jobs-worker"
"""The scrape job of the workers, for what the exporter does not have: their processes, and the application's metrics."""


@dataclass(frozen=True, kw_only=True)
class Settings(Objectives):
    """The objectives, and the addresses of ``docker-compose.yml``."""

    cluster: str = "default"
    """Added to every series by the scrape configuration; the application never sets it."""
    exporter: str = "exporter:9440"
    worker: str = "worker:9441"
    """The page of a supervisor."""
    alertmanager: str = "alertmanager:9093"
