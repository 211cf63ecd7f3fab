"""What the demo shows while it runs."""

from __future__ import annotations

import sys
import time
from typing import IO, Any

from rf_jobs.core.records import QueueInfo

STATES = ("ready", "scheduled", "running", "completed", "dead")
LINE_SECONDS = 2.0


class Screen:
    """A live table at a terminal, a line every two seconds elsewhere. ``out`` is stderr where stdout is for JSON."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._news: list[str] = []
        self._began = time.monotonic()
        self._at = 0.0
        self._done = 0
        self._live: Any = None
        if out.isatty():
            from rich.console import Console  # noqa: PLC0415
            from rich.live import Live  # noqa: PLC0415

            self._live = Live(console=Console(file=out), refresh_per_second=4, transient=False)
            self._live.start()

    def say(self, text: str) -> None:
        """Something happened."""
        self._news.append(f"{time.monotonic() - self._began:5.1f} s  {text}")
        if self._live is None:
            print(self._news[-1], file=self._out, flush=True)

    def show(self, queues: list[QueueInfo], workers: int) -> None:
        """Where things stand."""
        now = time.monotonic()
        done = sum(queue.ledger.get("completed", 0) for queue in queues)
        if self._live is None and now - self._at < LINE_SECONDS:
            return
        rate = (done - self._done) / (now - self._at) if self._at else 0.0
        self._at, self._done = now, done
        if self._live is not None:
            self._live.update(self._table(queues, workers, rate))
        else:
            counts = "  ".join(f"{state} {sum(q.counts[state] for q in queues)}" for state in STATES)
            print(
                f"{now - self._began:5.1f} s  {counts}  {rate:.0f} jobs/s, {workers} workers",
                file=self._out,
                flush=True,
            )

    def _table(self, queues: list[QueueInfo], workers: int, rate: float) -> Any:
        from rich.console import Group  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table(title=f"rf-jobs demo: {rate:.0f} jobs/s, {workers} workers", title_justify="left")
        table.add_column("queue")
        for state in (*STATES, "retried", "reclaimed"):
            table.add_column(state, justify="right")
        for queue in queues:
            events = [str(queue.ledger.get(event, 0)) for event in ("retried", "reclaimed")]
            table.add_row(queue.name, *(str(queue.counts[state]) for state in STATES), *events)
        return Group(table, Text("\n".join(self._news[-8:])))

    def close(self) -> None:
        """End the live table."""
        if self._live is not None:
            self._live.stop()


def choose(as_json: bool) -> Screen:
    """The screen that fits."""
    return Screen(sys.stderr if as_json else sys.stdout)
