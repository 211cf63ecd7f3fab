"""Subscribers that turn the core's events into metrics, spans and logs; ``telemetry()`` puts them in place."""

from rf_jobs.telemetry.wiring import telemetry

__all__ = ["telemetry"]
