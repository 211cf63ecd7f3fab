"""What ``rf-jobs top`` sees: queues, workers and running jobs at one moment, and how fast the ledger counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from rf_jobs.client.manager import QueueManager
from rf_jobs.core.inspector import queue_info
from rf_jobs.core.records import JobRecord, QueueInfo, WorkerInfo
from rf_jobs.core.running import longest_running
from rf_jobs.store.shapes import Survey
from rf_jobs.words.timing import from_ms

RATED = ("dispatched", "started", "completed", "retried", "dead")
"""Events of the ledger whose rates are told."""
SHOWN_RUNNING = 5

Rates = Mapping[str, float]


@dataclass(frozen=True)
class Look:
    """One look."""

    at: datetime
    """By the server's clock."""
    seconds: float | None
    """Since the look before; None for the first."""
    queues: list[QueueInfo]
    """The one that is latest comes first."""
    rates: Mapping[str, Rates] | None
    """Events a second by queue, between the look before and this one; None where there is nothing to compare with."""
    workers: list[WorkerInfo]
    running: list[JobRecord]
    """The few that have run longest."""

    @property
    def slots(self) -> int:
        """Jobs that the live workers can run at once."""
        return sum(worker.slots for worker in self._live)

    @property
    def busy(self) -> int:
        """Slots in use."""
        return sum(worker.busy for worker in self._live)

    @property
    def utilization(self) -> float:
        """Share of the slots' time that went into jobs, 0 to 1, as the workers last said."""
        return sum(worker.utilization * worker.slots for worker in self._live) / self.slots if self.slots else 0.0

    @property
    def _live(self) -> list[WorkerInfo]:
        return [worker for worker in self.workers if worker.state != "stale"]

    def total(self, state: str) -> int:
        """Jobs in one state."""
        return sum(queue.counts[state] for queue in self.queues)

    def rate(self, *events: str, queue: str | None = None) -> float | None:
        """How often these happen a second, in one queue or in all; None where that is not known."""
        if self.rates is None:
            return None
        asked = self.rates.values() if queue is None else [self.rates[queue]]
        return sum(rates[event] for rates in asked for event in events)


class Looker:
    """Looks again and again."""

    def __init__(self, manager: QueueManager) -> None:
        self._manager = manager
        self._before: Survey | None = None

    async def look(self) -> Look:
        """Look once. Raises ``BackendError``."""
        inspector = self._manager.inspector
        survey = await inspector.survey()
        workers = await self._manager.workers()
        busy = [queue.name for queue in survey.queues if queue.cards["running"]]
        running = await longest_running(self._manager.store, inspector, busy, SHOWN_RUNNING)
        before, self._before = self._before, survey
        queues = [queue_info(queue, survey.now_ms) for queue in survey.queues]
        return Look(
            at=from_ms(survey.now_ms),
            seconds=None if before is None else (survey.now_ms - before.now_ms) / 1000,
            queues=sorted(queues, key=lambda queue: (-queue.oldest_ready_seconds, queue.name)),
            rates=None if before is None else rates_between(before, survey),
            workers=sorted(workers, key=lambda worker: (worker.host, worker.pid)),
            running=running,
        )


def rates_between(before: Survey, now: Survey) -> dict[str, Rates] | None:
    """Events a second, by queue; None where the two can't be compared: the server was emptied between them, or no time passed."""
    seconds = (now.now_ms - before.now_ms) / 1000
    if before.instance != now.instance or seconds <= 0:
        return None
    was = {queue.name: queue.ledger for queue in before.queues}
    return {
        queue.name: {
            event: max(0, queue.ledger.get(event, 0) - was.get(queue.name, {}).get(event, 0)) / seconds
            for event in RATED
        }
        for queue in now.queues
    }
