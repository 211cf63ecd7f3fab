"""The command line's own logs: lines on standard error, as text for people or as JSON for collectors."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec


class _Handler(logging.Handler):
    """Writes to whatever standard error is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


class TextFormatter(logging.Formatter):
    """``12:30:01 INFO rf_jobs.worker message  key=value``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s  %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        line = super().formatMessage(record)
        fields = {**getattr(record, "rf_fields", {}), **_named(getattr(record, "rf_job", {}))}
        return line + ("  " + " ".join(f"{key}={value}" for key, value in fields.items()) if fields else "")


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        if getattr(record, "rf_job", None):
            line["job"] = record.rf_job  # type: ignore[attr-defined]
        if getattr(record, "rf_fields", None):
            line["fields"] = record.rf_fields  # type: ignore[attr-defined]
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def _named(job: dict[str, Any]) -> dict[str, Any]:
    """Of a job's fields, those that a person reads."""
    return {name: job[name] for name in ("job_id", "attempt") if name in job}


def set_up(*, verbose: bool = False, as_json: bool = False, quiet: bool = False) -> None:
    """Send the library's logs to standard error: information for those who run something, all with ``verbose``."""
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(old)
    handler = _Handler()
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root.addHandler(handler)
    root.setLevel(logging.WARNING if quiet else logging.INFO)
    logging.getLogger("rf_jobs").setLevel(logging.DEBUG if verbose else logging.NOTSET)
