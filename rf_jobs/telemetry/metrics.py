"""From events to metric cells. One dictionary look-up for each job finds all cells of its queue and class, bound once.

What is counted where: *processed* are attempts that ended, by how; a job that was handed back without having run, parked
or expired was no attempt (the ledger counts those). An attempt whose lease was lost is counted by the worker that takes the
job back, once, not by the one that lost it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import TypeVar

from rf_jobs.model import events as ev
from rf_jobs.model.events import AttemptEnded, EventBus
from rf_jobs.telemetry import names
from rf_jobs.telemetry.cells import Counter, Gauge, Histogram, MetricStore
from rf_jobs.telemetry.traceparent import is_sampled
from rf_jobs.words.timing import mono

UNKNOWN = "_unknown"
"""The class of a job whose envelope nobody could read, or had read when it happened."""

B = TypeVar("B")


class RunCells:
    """The cells that a worker needs for one queue and class; all are there, at 0, from the start."""

    __slots__ = (
        "attempts", "cancelled", "cancelled_queued", "cancelled_running", "dead", "duration", "failed", "lost", "released",
        "released_by", "retried", "retry", "success", "total", "wait",
    )  # fmt: skip

    def __init__(self, store: MetricStore, queue: str, job_class: str) -> None:
        def processed(outcome: str) -> Counter:
            return store.counter(names.JOBS_PROCESSED, queue, job_class, outcome)

        def histogram(metric: names.Metric) -> Histogram:
            return store.histogram(metric, queue, job_class)

        self.success, self.retry, self.dead = processed("success"), processed("retry"), processed("dead")
        self.cancelled, self.released, self.lost = processed("cancelled"), processed("released"), processed("lost")
        self.failed = {r: store.counter(names.JOBS_FAILED, queue, job_class, r) for r in names.FAILURE_REASONS}
        self.retried = store.counter(names.JOBS_RETRIED, queue, job_class)
        self.released_by = {r: store.counter(names.JOBS_RELEASED, queue, job_class, r) for r in names.RELEASE_REASONS}
        self.cancelled_queued = store.counter(names.JOBS_CANCELLED, queue, job_class, "queued")
        self.cancelled_running = store.counter(names.JOBS_CANCELLED, queue, job_class, "running")
        self.duration = histogram(names.JOB_DURATION)
        self.wait = histogram(names.JOB_QUEUE_WAIT)
        self.total = histogram(names.JOB_END_TO_END)
        self.attempts = histogram(names.JOB_ATTEMPTS)

    def ran(self, event: AttemptEnded) -> None:
        """An attempt ended that did run."""
        trace_id = event.trace[3:35] if is_sampled(event.trace) else ""
        self.duration.observe(event.duration, trace_id)
        self.wait.observe(event.wait, trace_id)

    def fail(self, reason: str) -> None:
        """It failed. Hand-written consumers may give any reason."""
        known = "unopened" if reason in names.UNOPENED else reason
        self.failed[known if known in self.failed else "exception"].value += 1


class DispatchCells:
    """The cells that a dispatching process needs for one queue and class."""

    __slots__ = ("deduplicated", "dispatched", "duration", "replayed")

    def __init__(self, store: MetricStore, queue: str, job_class: str) -> None:
        self.dispatched = store.counter(names.JOBS_DISPATCHED, queue, job_class)
        self.deduplicated = store.counter(names.JOBS_DEDUPLICATED, queue, job_class)
        self.replayed = store.counter(names.JOBS_REPLAYED, queue, job_class)
        self.duration = store.histogram(names.JOB_DISPATCH_DURATION, queue)


class _Bundles(dict[tuple[str, str], B]):
    """Bundles by queue and class, made when first asked for."""

    def __init__(self, make: Callable[[str, str], B]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: tuple[str, str]) -> B:
        made = self[key] = self._make(key[0], key[1] or UNKNOWN)
        return made


class Metrics:
    """Subscribes when it is made; ``close`` ends that. Keeps nothing but the cells in its store."""

    def __init__(
        self, bus: EventBus, store: MetricStore, *, worker: bool, known: Iterable[tuple[str, str]] = ()
    ) -> None:
        self.store = store
        self._runs: _Bundles[RunCells] = _Bundles(lambda queue, name: RunCells(store, queue, name))
        self._dispatches: _Bundles[DispatchCells] = _Bundles(lambda queue, name: DispatchCells(store, queue, name))
        self._operations: dict[str, Histogram] = {}
        self._create_known(list(known), worker=worker)
        self._ends = [bus.subscribe(kind, handler) for kind, handler in self._handlers().items()]

    def close(self) -> None:
        """Listen no longer."""
        for end in self._ends:
            end()

    def _create_known(self, known: list[tuple[str, str]], *, worker: bool) -> None:
        """Every series that can be known at the start, at 0: ``rate()`` then sees the first event."""
        for pair in known:
            _ = self._dispatches[pair]
            if worker:
                _ = self._runs[pair]
        self.store.precreate([names.REDIS_OP_DURATION, names.TELEMETRY_DROPPED, names.TELEMETRY_SPANS])
        if worker:
            self._fetches = [self.store.counter(names.WORKER_FETCHES, result) for result in names.FETCH_RESULTS]
            self._fetched = self.store.counter(names.WORKER_FETCHED_JOBS)
            self._busy_seconds = self.store.counter(names.WORKER_BUSY_SECONDS)
            self._extension_failures = self.store.counter(names.WORKER_EXTENSION_FAILURES)
            self._lag = self.store.histogram(names.WORKER_LOOP_LAG)
            self._utilization: Gauge = self.store.gauge(names.WORKER_UTILIZATION)

    def _handlers(self) -> dict[type[ev.Event], Callable[..., None]]:
        return {
            ev.JobDispatched: self._on_dispatched,
            ev.JobDeduplicated: self._on_deduplicated,
            ev.DispatchRejected: self._on_rejected,
            ev.JobReplayed: self._on_replayed,
            ev.JobCompleted: self._on_completed,
            ev.JobRetried: self._on_retried,
            ev.JobDied: self._on_died,
            ev.JobDiscarded: self._on_discarded,
            ev.JobSnoozed: self._on_snoozed,
            ev.JobReleased: self._on_released,
            ev.JobCrashed: self._on_crashed,
            ev.JobReclaimed: self._on_reclaimed,
            ev.JobCancelled: self._on_cancelled,
            ev.JobsPromoted: self._on_promoted,
            ev.OperationDone: self._on_operation,
            **(self._worker_handlers() if hasattr(self, "_fetches") else {}),
        }

    def _worker_handlers(self) -> dict[type[ev.Event], Callable[..., None]]:
        return {ev.WorkerBeat: self._on_beat, ev.JobsFetched: self._on_fetched, ev.LoopLagged: self._on_lagged}

    # --- attempts ------------------------------------------------------------------------------------------------

    def _on_completed(self, event: ev.JobCompleted) -> None:
        # For every job: written out, since each call would cost as much as what it does.
        cells = self._runs[event.queue, event.job_class]
        cells.success.value += 1
        if event.trace:
            cells.ran(event)
        else:
            value, cell = event.duration, cells.duration
            cell.counts[bisect_left(cell.bounds, value)] += 1
            cell.sum += value
            value, cell = event.wait, cells.wait
            cell.counts[bisect_left(cell.bounds, value)] += 1
            cell.sum += value
        value, cell = event.total, cells.total
        cell.counts[bisect_left(cell.bounds, value)] += 1
        cell.sum += value
        value, cell = event.attempt, cells.attempts
        cell.counts[bisect_left(cell.bounds, value)] += 1
        cell.sum += value

    def _on_retried(self, event: ev.JobRetried) -> None:
        cells = self._runs[event.queue, event.job_class]
        cells.retry.value += 1
        cells.retried.value += 1
        if event.reason not in ("requested", ""):
            cells.fail(event.reason)
        cells.ran(event)

    def _on_died(self, event: ev.JobDied) -> None:
        cells = self._runs[event.queue, event.job_class]
        cells.dead.value += 1
        cells.fail(event.reason)
        if event.attempt:  # a parked job that nobody could run has made none
            cells.ran(event)
            cells.attempts.observe(event.attempt)

    def _on_discarded(self, event: ev.JobDiscarded) -> None:
        cells = self._runs[event.queue, event.job_class]
        cells.cancelled.value += 1
        cells.cancelled_running.value += 1
        cells.ran(event)
        cells.attempts.observe(event.attempt)

    def _on_snoozed(self, event: ev.JobSnoozed) -> None:
        cells = self._runs[event.queue, event.job_class]
        cells.released.value += 1
        cells.released_by["snooze"].value += 1
        cells.ran(event)

    def _on_released(self, event: ev.JobReleased) -> None:
        if event.reason == "shutdown":
            cells = self._runs[event.queue, event.job_class]
            cells.released.value += 1
            cells.released_by["shutdown"].value += 1
            cells.ran(event)

    def _on_crashed(self, event: ev.JobCrashed) -> None:
        cells = self._runs[event.queue, event.job_class]
        cells.lost.value += 1
        cells.fail("lost")
        cells.ran(event)

    def _on_reclaimed(self, event: ev.JobReclaimed) -> None:
        cells = self._runs[event.queue, event.job_class]
        if event.state == "cancelled":
            cells.cancelled_running.value += 1
        outcome = {"dead": cells.dead, "cancelled": cells.cancelled}.get(event.state, cells.lost)
        outcome.value += 1
        cells.fail("lost")

    def _on_cancelled(self, event: ev.JobCancelled) -> None:
        self._runs[event.queue, event.job_class].cancelled_queued.value += 1

    def _on_promoted(self, event: ev.JobsPromoted) -> None:
        self.store.histogram(names.JOB_PROMOTE_LAG, event.queue).observe(event.lag_ms / 1000)

    # --- dispatches ----------------------------------------------------------------------------------------------

    def _on_dispatched(self, event: ev.JobDispatched) -> None:
        cells = self._dispatches[event.queue, event.job_class]
        cells.dispatched.value += 1
        value, cell = mono() - event.began, cells.duration
        cell.counts[bisect_left(cell.bounds, value)] += 1
        cell.sum += value

    def _on_deduplicated(self, event: ev.JobDeduplicated) -> None:
        self._dispatches[event.queue, event.job_class].deduplicated.value += 1

    def _on_replayed(self, event: ev.JobReplayed) -> None:
        self._dispatches[event.queue, event.job_class].replayed.value += 1

    def _on_rejected(self, event: ev.DispatchRejected) -> None:
        self.store.counter(names.JOBS_DISPATCH_ERRORS, event.queue, event.reason).value += 1

    # --- the worker and the server -------------------------------------------------------------------------------

    def _on_beat(self, event: ev.WorkerBeat) -> None:
        self._busy_seconds.value += event.busy_seconds
        self._extension_failures.value += event.extension_failures
        share = event.busy_seconds / max(event.elapsed * event.slots, 1e-9)
        self._utilization.value = min(1.0, max(0.0, share))
        for queue in event.queues:
            self.store.gauge(names.WORKER_SLOTS, queue).value = event.slots
            self.store.gauge(names.WORKER_BUSY_SLOTS, queue).value = event.busy

    def _on_fetched(self, event: ev.JobsFetched) -> None:
        hit, empty, error = self._fetches
        (error if event.error else hit if event.count else empty).value += 1
        self._fetched.value += event.count

    def _on_lagged(self, event: ev.LoopLagged) -> None:
        self._lag.observe(event.seconds)

    def _on_operation(self, event: ev.OperationDone) -> None:
        cell = self._operations.get(event.op)
        if cell is None:
            cell = self._operations[event.op] = self.store.histogram(names.REDIS_OP_DURATION, event.op)
        cell.observe(event.seconds)
        if event.error:
            self.store.counter(names.REDIS_OP_ERRORS, event.op, event.error).value += 1
