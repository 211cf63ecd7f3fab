"""The lines that a job wrote with ``ctx.log``, as they are read back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rf_jobs.core.records import UNREADABLE, moment
from rf_jobs.model import codec
from rf_jobs.words.timing import from_ms


@dataclass(frozen=True)
class LogLine:
    """One line of a job's log."""

    number: int
    """From 1, over all attempts. Numbers that are missing at the beginning are of lines that were dropped."""
    at: datetime
    """By the worker's clock."""
    level: int
    """As in ``logging``: 20 is INFO."""
    message: str
    attempt: int
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def level_name(self) -> str:
        """``INFO`` and the like."""
        return logging.getLevelName(self.level)


def read_lines(first: int, lines: Sequence[bytes]) -> list[LogLine]:
    """Lines as they lie in the store, the first of which has the number ``first``. A damaged one is shown as text."""
    return [_line(first + at, data) for at, data in enumerate(lines)]


def _line(number: int, data: bytes) -> LogLine:
    try:
        value = codec.decode_value(data)
        fields = value.get("fields", {})
        at = moment(value["at"]) or from_ms(0)
        return LogLine(
            number, at, int(value["level"]), str(value["message"]), int(value["attempt"]),
            fields if isinstance(fields, dict) else {},
        )  # fmt: skip
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        text = data[:2000].decode("utf-8", "replace")
        return LogLine(number, from_ms(0), logging.WARNING, f"{UNREADABLE}: {text}", 0)
