"""Imports redis-py without OpenTelemetry's metrics SDK.

redis-py loads that SDK wherever it is installed, for metrics of its own that rf-jobs never turns on: 3 MB and 70 ms in every
worker process. Ours are in ``rf_jobs.telemetry``. A program that wants redis-py's own imports ``redis`` before ``rf_jobs``.
"""

from __future__ import annotations

import importlib
import sys

_UNWANTED = ("opentelemetry.metrics", "opentelemetry.sdk.metrics")


def import_redis() -> None:
    """Load ``redis`` and ``redis.asyncio``, if nobody has yet."""
    hidden = [name for name in _UNWANTED if name not in sys.modules and "redis" not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # what the import system takes for "not there"
    try:
        importlib.import_module("redis.asyncio")
    finally:
        for name in hidden:
            del sys.modules[name]


import_redis()
