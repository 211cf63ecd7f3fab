"""From the workers' heartbeats to gauges of the fleet: no worker is named in a label, so none stays behind in the metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rf_jobs.core.records import WorkerInfo
from rf_jobs.telemetry import names
from rf_jobs.telemetry.exposition import Reading

# A worker that is stuck has asked to be replaced. What has no state of these is a hand-written consumer, no process of ours.
_STATES = {
    "starting": "running", "running": "running", "quiet": "quiet", "stopping": "stopping", "stuck": "stopping",
    "stale": "stale",
}  # fmt: skip


class WorkerGauges:
    """The fleet at one moment. Slots count for every queue that a process lists."""

    def __init__(self, workers: Sequence[WorkerInfo]) -> None:
        ours = [worker for worker in workers if worker.facts.get("state") in _STATES]
        self._states = Counter(_STATES[worker.state] for worker in ours)
        self._live = [worker for worker in ours if worker.state != "stale"]
        self.queues = tuple(sorted({queue for worker in self._live for queue in worker.queues}))
        """Every queue that a live worker serves."""

    def readings(self) -> Iterator[Reading]:
        """Their series."""
        for state in names.WORKER_STATES:
            yield Reading(names.WORKERS, (state,), float(self._states[state]))
        for queue in self.queues:
            serving = [worker for worker in self._live if queue in worker.queues]
            yield Reading(names.WORKER_SLOTS, (queue,), float(sum(worker.slots for worker in serving)))
            yield Reading(names.WORKER_BUSY_SLOTS, (queue,), float(sum(worker.busy for worker in serving)))
        yield Reading(names.WORKER_UTILIZATION, (), self._utilization())

    def _utilization(self) -> float:
        """The fleet's, each worker by its slots."""
        slots = sum(worker.slots for worker in self._live)
        return sum(worker.utilization * worker.slots for worker in self._live) / slots if slots else 0.0
