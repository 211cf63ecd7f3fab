from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from rf_jobs.model import events as ev
from rf_jobs.model.events import EventBus
from rf_jobs.telemetry import names
from rf_jobs.telemetry.cells import Counter, Gauge, Histogram, MetricStore
from rf_jobs.telemetry.metrics import UNKNOWN, Metrics
from rf_jobs.telemetry.names import Metric
from rf_jobs.words.timing import mono

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


def job(kind: Callable[..., Any], *more: Any, **named: Any) -> Any:
    """Something that happened to a job."""
    return kind("0190-id", "emails", "SendEmail", *more, **named)


def ended(kind: Callable[..., Any], *more: Any) -> Any:
    """An attempt that ended."""
    return job(kind, 1, "w1", 0.3, 0.02, 0.5, *more)


class Fleet:
    """A bus with metrics on it."""

    def __init__(self, *, worker: bool = True) -> None:
        self.bus = EventBus()
        self.cells = MetricStore()
        self.metrics = Metrics(self.bus, self.cells, worker=worker, known=[("emails", "SendEmail")])

    def value(self, metric: Metric, *labels: str) -> float:
        cell = {(m.name, v): c for m, v, c in self.cells.cells()}.get((metric.name, labels))
        if isinstance(cell, Histogram):
            return sum(cell.counts)
        return cell.value if isinstance(cell, Counter | Gauge) else math.nan

    def of(self, metric: Metric, *labels: str) -> float:
        return self.value(metric, "emails", "SendEmail", *labels)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.mark.parametrize(
    ("event", "outcome", "reason"),
    [
        (ended(ev.JobCompleted), "success", ""),
        (ended(ev.JobRetried, "", "exception"), "retry", "exception"),
        (ended(ev.JobRetried, "", "requested"), "retry", ""),
        (ended(ev.JobDied, "", "timeout"), "dead", "timeout"),
        (ended(ev.JobDied, "", "requested"), "dead", "exception"),
        (ended(ev.JobDied, "", "something a consumer said"), "dead", "exception"),
        (ended(ev.JobDied, "", "decode"), "dead", "decode"),
        (ended(ev.JobDiscarded, "", "cancelled"), "cancelled", ""),
        (ended(ev.JobSnoozed), "released", ""),
        (ended(ev.JobReleased, "", "shutdown"), "released", ""),
        (ended(ev.JobCrashed, "", "killed"), "lost", "lost"),
        (job(ev.JobReclaimed, 1, "w2", "ready"), "lost", "lost"),
        (job(ev.JobReclaimed, 3, "w2", "dead"), "dead", "lost"),
        (job(ev.JobReclaimed, 1, "w2", "cancelled"), "cancelled", "lost"),
    ],
)
def test_an_ended_attempt_is_counted_once(fleet: Fleet, event: ev.JobEvent, outcome: str, reason: str) -> None:
    fleet.bus.emit(event)
    assert {o: fleet.of(names.JOBS_PROCESSED, o) for o in names.OUTCOMES} == {
        o: float(o == outcome) for o in names.OUTCOMES
    }
    assert {r: fleet.of(names.JOBS_FAILED, r) for r in names.FAILURE_REASONS} == {
        r: float(r == reason) for r in names.FAILURE_REASONS
    }


@pytest.mark.parametrize(
    "event",
    [
        ended(ev.JobReleased, "", "handed back"),
        ended(ev.JobParked, "", "unknown_class"),
        ended(ev.JobExpired),
        ended(ev.AttemptLost),
        job(ev.JobCancelled),
    ],
)
def test_what_was_no_attempt_is_not_counted_as_one(fleet: Fleet, event: ev.JobEvent) -> None:
    fleet.bus.emit(event)
    assert sum(fleet.of(names.JOBS_PROCESSED, outcome) for outcome in names.OUTCOMES) == 0


def test_a_success_is_measured(fleet: Fleet) -> None:
    fleet.bus.emit(ended(ev.JobCompleted))
    for metric in (names.JOB_DURATION, names.JOB_QUEUE_WAIT, names.JOB_END_TO_END, names.JOB_ATTEMPTS):
        assert fleet.of(metric) == 1
    assert fleet.cells.histogram(names.JOB_DURATION, "emails", "SendEmail").sum == pytest.approx(0.02)
    assert fleet.cells.histogram(names.JOB_QUEUE_WAIT, "emails", "SendEmail").sum == pytest.approx(0.3)
    assert fleet.cells.histogram(names.JOB_END_TO_END, "emails", "SendEmail").sum == pytest.approx(0.5)


@pytest.mark.parametrize("trace", ["", TRACE[:-2] + "00", "rubbish"])
def test_only_a_recorded_span_leaves_an_exemplar(fleet: Fleet, trace: str) -> None:
    fleet.bus.emit(ended(ev.JobCompleted, trace))
    assert not any(fleet.cells.histogram(names.JOB_DURATION, "emails", "SendEmail").exemplars)
    fleet.bus.emit(ended(ev.JobCompleted, TRACE))
    (exemplar,) = [e for e in fleet.cells.histogram(names.JOB_DURATION, "emails", "SendEmail").exemplars if e]
    assert exemplar[:2] == (0.02, "a" * 32)


def test_everything_known_is_there_at_zero(fleet: Fleet) -> None:
    delta = fleet.cells.take_delta()
    for outcome in names.OUTCOMES:
        assert delta.increments[f'["jobs_processed_total","emails","SendEmail","{outcome}"]'] == 0
    assert delta.increments['["jobs_dispatched_total","emails","SendEmail"]'] == 0
    assert delta.increments['["worker_fetches_total","empty"]'] == 0
    assert set(delta.increments.values()) == {0}


def test_a_process_that_only_dispatches_has_no_metrics_of_workers() -> None:
    fleet = Fleet(worker=False)
    fleet.bus.emit(ev.WorkerBeat("w", 10, 1, 0, ("emails",), 1.0, 1.0))
    fleet.bus.emit(job(ev.JobDispatched, "ready", began=mono()))
    assert fleet.of(names.JOBS_DISPATCHED) == 1
    assert fleet.value(names.JOB_DISPATCH_DURATION, "emails") == 1
    assert not [m.name for m, _, _ in fleet.cells.cells() if m.name.startswith("worker_")]
    assert math.isnan(fleet.of(names.JOBS_PROCESSED, "success"))


def test_dispatches(fleet: Fleet) -> None:
    fleet.bus.emit(job(ev.JobDeduplicated))
    fleet.bus.emit(job(ev.JobReplayed))
    fleet.bus.emit(ev.DispatchRejected("emails", "SendEmail", "BackendError"))
    assert fleet.of(names.JOBS_DEDUPLICATED) == fleet.of(names.JOBS_REPLAYED) == 1
    assert fleet.value(names.JOBS_DISPATCH_ERRORS, "emails", "BackendError") == 1


def test_a_job_whose_class_nobody_read(fleet: Fleet) -> None:
    fleet.bus.emit(ev.JobDied("id", "emails", "", 0, "", 0.0, 0.0, 0.0, "", "unknown_class"))
    assert fleet.value(names.JOBS_PROCESSED, "emails", UNKNOWN, "dead") == 1
    assert fleet.value(names.JOBS_FAILED, "emails", UNKNOWN, "unknown_class") == 1
    assert fleet.value(names.JOB_DURATION, "emails", UNKNOWN) == 0


def test_cancelled_by_stage(fleet: Fleet) -> None:
    fleet.bus.emit(job(ev.JobCancelled))
    fleet.bus.emit(ended(ev.JobDiscarded, "", "cancelled"))
    assert fleet.of(names.JOBS_CANCELLED, "queued") == fleet.of(names.JOBS_CANCELLED, "running") == 1


def test_the_worker(fleet: Fleet) -> None:
    fleet.bus.emit(ev.WorkerBeat("w", 10, 4, 0, ("emails", "other"), 5.0, 1.0, 2))
    fleet.bus.emit(ev.JobsFetched("w", 3))
    fleet.bus.emit(ev.JobsFetched("w", 0))
    fleet.bus.emit(ev.JobsFetched("w", 0, "BackendError"))
    fleet.bus.emit(ev.LoopLagged("w", 0.002))
    fleet.bus.emit(ev.JobsPromoted("emails", 5, 1500))
    fleet.bus.emit(ev.OperationDone("fetch", 0.001))
    fleet.bus.emit(ev.OperationDone("fetch", 0.1, "connection"))
    assert fleet.value(names.WORKER_UTILIZATION) == 0.5
    assert fleet.value(names.WORKER_SLOTS, "other") == 10
    assert fleet.value(names.WORKER_BUSY_SLOTS, "emails") == 4
    assert fleet.value(names.WORKER_BUSY_SECONDS) == 5
    assert fleet.value(names.WORKER_EXTENSION_FAILURES) == 2
    assert [fleet.value(names.WORKER_FETCHES, r) for r in ("hit", "empty", "error")] == [1, 1, 1]
    assert fleet.value(names.WORKER_FETCHED_JOBS) == 3
    assert fleet.value(names.WORKER_LOOP_LAG) == 1
    assert fleet.cells.histogram(names.JOB_PROMOTE_LAG, "emails").sum == 1.5
    assert fleet.value(names.REDIS_OP_DURATION, "fetch") == 2
    assert fleet.value(names.REDIS_OP_ERRORS, "fetch", "connection") == 1


def test_after_close_nothing_is_counted(fleet: Fleet) -> None:
    fleet.metrics.close()
    fleet.bus.emit(ended(ev.JobCompleted))
    assert fleet.of(names.JOBS_PROCESSED, "success") == 0


@pytest.mark.parametrize("reason", names.UNOPENED)
def test_rare_reasons_of_burials_share_a_label(fleet: Fleet, reason: str) -> None:
    fleet.bus.emit(ev.JobDied("id", "emails", "SendEmail", 1, "w", 0.0, 0.0, 0.0, "", reason))
    assert fleet.of(names.JOBS_FAILED, "unopened") == 1
    assert fleet.of(names.JOBS_FAILED, "exception") == 0
