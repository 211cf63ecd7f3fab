"""Keeps what a handler logs through ``logging`` with its job, where ``capture_logging`` asks for it."""

from __future__ import annotations

import logging

from rf_jobs.model.context import running


class Capture(logging.Handler):
    """A handler of the root logger while its worker runs; ``start`` and ``stop`` add and remove it. Which records there are
    is for the levels of the loggers to say. Lines of ``ctx.log`` are kept anyway, and ours are not the job's."""

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker

    def start(self) -> None:
        """Begin."""
        logging.getLogger().addHandler(self)

    def stop(self) -> None:
        """End."""
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        ctx = running.get()
        if ctx is None or ctx.worker != self._worker or record.name.startswith("rf_jobs."):
            return
        try:
            ctx.keep_line(record.levelno, self.format(record), {"logger": record.name})
        except Exception:
            self.handleError(record)
