"""promtool's unit tests of the rules: each alert fires when it should, for whom it should, and not otherwise."""

from __future__ import annotations

from typing import Any

from deploy.rule_case import Case, Fired, labels_of, series
from deploy.settings import Settings
from deploy.waiting_cases import CASES as WAITING
from rf_jobs.telemetry.promql import recorded_name
from rf_jobs.telemetry.rules.objectives import JOB


def _processed(queue: str, outcome: str) -> str:
    return f'jobs_processed_total{{cluster="c1", queue="{queue}", job_class="A", outcome="{outcome}"}}'


def _burned(window: str, value: str, queue: str = "bad") -> Fired:
    return Fired("RFJobsErrorBudgetBurn", value, window, labels_of(queue))


_BURN = "RFJobsErrorBudgetBurn"
_FAST_BURN = Case(
    "fast burn: one job in ten dies in one queue, one in a thousand in the other",
    {
        _processed("bad", "success"): "0+90x300",
        _processed("bad", "dead"): "0+10x300",
        _processed("good", "success"): "0+999x300",
        _processed("good", "dead"): "0+1x300",
        _processed("idle", "success"): "0+0x300",
        _processed("idle", "dead"): "0+0x300",
    },
    {
        ("1m", _BURN): (),
        ("10m", _BURN): (_burned("1h/5m", "10%"),),
        ("30m", _BURN): (_burned("1h/5m", "10%"), _burned("6h/30m", "10%")),
        ("4h", _BURN): tuple(_burned(window, "10%") for window in ("1h/5m", "6h/30m", "1d/2h", "3d/6h")),
    },
)
_SLOW_BURN = Case(
    "slow burn: one job in fifty dies, which opens tickets and wakes nobody",
    {_processed("bad", "success"): "0+98x300", _processed("bad", "dead"): "0+2x300"},
    {
        ("50m", _BURN): (),
        ("2h", _BURN): (_burned("1d/2h", "2%"),),
        ("4h", _BURN): (_burned("1d/2h", "2%"), _burned("3d/6h", "2%")),
    },
)
_RECOVERED = Case(
    "burn over: the short windows end the pages, after keep_firing_for; tickets stay while their windows remember",
    {_processed("bad", "success"): "0+90x20 1890+100x220", _processed("bad", "dead"): "0+10x20 200+0x220"},
    {
        ("20m", _BURN): (_burned("1h/5m", "10%"), _burned("6h/30m", "10%")),
        ("80m", _BURN): (_burned("1d/2h", "2.503%"),),
        ("4h", _BURN): (_burned("3d/6h", "0.8337%"),),
    },
)
_STUCK = Case(
    "stuck: ready jobs and none started; not where it is paused, where jobs start, or where none is ready",
    {
        series("queue_depth", "stuck", state="ready"): "5x60",
        series("queue_events_total", "stuck", event="started"): "7x60",
        series("queue_paused", "stuck"): "0x60",
        series("queue_depth", "paused", state="ready"): "5x60",
        series("queue_events_total", "paused", event="started"): "7x60",
        series("queue_paused", "paused"): "1x60",
        series("queue_depth", "busy", state="ready"): "5x60",
        series("queue_events_total", "busy", event="started"): "0+3x60",
        series("queue_paused", "busy"): "0x60",
        series("queue_depth", "empty", state="ready"): "0x60",
        series("queue_events_total", "empty", event="started"): "7x60",
        series("queue_paused", "empty"): "0x60",
    },
    {
        ("4m", "RFJobsQueueStuck"): (),
        ("20m", "RFJobsQueueStuck"): (Fired("RFJobsQueueStuck", "5", labels=labels_of("stuck")),),
    },
)
_AGE = Case(
    "age: each queue has its own objective",
    {
        series("queue_oldest_job_age_seconds", "late"): "0+60x60",
        series("rf_queue_age_objective_seconds", "late"): "300x60",
        series("queue_oldest_job_age_seconds", "patient"): "0+60x60",
        series("rf_queue_age_objective_seconds", "patient"): "86400x60",
    },
    {
        ("9m", "RFJobsQueueAgeHigh"): (),
        ("12m", "RFJobsQueueAgeHigh"): (Fired("RFJobsQueueAgeHigh", "12m 0s", labels=labels_of("late")),),
    },
)
_WORKERS = Case(
    "no workers: ready jobs whose queue no live worker lists",
    {
        series("queue_depth", "alone", state="ready"): "3x30",
        series("queue_depth", "gone", state="ready"): "4x30",
        series("worker_slots", "gone"): "10x5 0x25",
        series("queue_depth", "served", state="ready"): "3x30",
        series("worker_slots", "served"): "10x30",
        series("queue_depth", "empty", state="ready"): "0x30",
    },
    {
        ("4m", "RFJobsNoWorkers"): (),
        ("8m", "RFJobsNoWorkers"): (Fired("RFJobsNoWorkers", "3", labels=labels_of("alone")),),
        ("20m", "RFJobsNoWorkers"): tuple(
            Fired("RFJobsNoWorkers", value, labels=labels_of(queue)) for queue, value in (("alone", "3"), ("gone", "4"))
        ),
    },
)
_DEAD = Case(
    "dead letters: one is enough; not when they were there before, nor when they are gone again",
    {
        series("queue_events_total", "bad", event="dead"): "0x10 1x30",
        series("queue_depth", "bad", state="dead"): "0x10 1x30",
        series("queue_events_total", "old", event="dead"): "9x40",
        series("queue_depth", "old", state="dead"): "9x40",
        series("queue_events_total", "replayed", event="dead"): "0x10 1x30",
        series("queue_depth", "replayed", state="dead"): "0x40",
    },
    {
        ("10m", "RFJobsDeadLetterGrowing"): (),
        ("20m", "RFJobsDeadLetterGrowing"): (Fired("RFJobsDeadLetterGrowing", "1", labels=labels_of("bad")),),
        ("40m", "RFJobsDeadLetterGrowing"): (),
    },
)
_LEDGER = Case(
    "ledger: jobs lost or doubled, but not a passing difference",
    {
        series("rf_ledger_imbalance_jobs", "lost"): "1x30",
        series("rf_ledger_imbalance_jobs", "doubled"): "0x2 2x28",
        series("rf_ledger_imbalance_jobs", "passing"): "1x5 0x25",
        series("rf_ledger_imbalance_jobs", "sound"): "0x30",
    },
    {
        ("9m", "RFJobsLedgerMismatch"): (),
        ("20m", "RFJobsLedgerMismatch"): (
            Fired("RFJobsLedgerMismatch", "1", labels=labels_of("lost")),
            Fired("RFJobsLedgerMismatch", "2", labels=labels_of("doubled")),
        ),
    },
)
_AT = {"cluster": "c1"}
_LAST = 'rf_exporter_last_success_timestamp_seconds{cluster="c1", instance="exporter:9440", job="rf-jobs-exporter"}'
_UP = f'up{{cluster="c1", instance="exporter:9440", job="{JOB}"}}'
_EXPORTER = (
    Case(
        "exporter: reads the store",
        {_LAST: "0+60x30", _UP: "1x30"},
        {("20m", "RFJobsExporterStale"): (), ("20m", "RFJobsMetricsAbsent"): ()},
    ),
    Case(
        "exporter: scraped, but blind since minute 5",
        {_LAST: "0+60x5 300x25", _UP: "1x30"},
        {
            ("5m", "RFJobsExporterStale"): (),
            ("20m", "RFJobsExporterStale"): (Fired("RFJobsExporterStale", "900", labels=_AT),),
        },
    ),
    Case(
        "exporter: down, so that its series end",
        {_LAST: "0+60x5 stale", _UP: "1x5 0x25"},
        {
            ("20m", "RFJobsExporterStale"): (Fired("RFJobsExporterStale", "0", labels=_AT),),
            ("20m", "RFJobsMetricsAbsent"): (Fired("RFJobsMetricsAbsent", "1"),),
        },
    ),
    Case(
        "exporter: the active one of two goes down, and the other takes over",
        {
            _LAST: "0+60x5 stale",
            _UP: "1x5 0x25",
            _LAST.replace("exporter:", "other:"): "_x6 360+60x25",
            _UP.replace("exporter:", "other:"): "1x30",
        },
        {("5m", "RFJobsExporterStale"): (), ("20m", "RFJobsExporterStale"): ()},
    ),
    Case(
        "exporter: never there",
        {},
        {
            ("5m", "RFJobsMetricsAbsent"): (),
            ("20m", "RFJobsMetricsAbsent"): (Fired("RFJobsMetricsAbsent", "1"),),
            ("20m", "RFJobsWatchdog"): (Fired("RFJobsWatchdog", "1"),),
        },
    ),
)


def _recordings(namespace: str) -> Case:
    eta, processed = "queue:drain_eta_seconds:estimate", "queue:jobs_processed:rate5m"
    labels = '{cluster="c1", queue="q"}'
    return Case(
        "recordings: 60 in and 180 out a minute, 600 waiting, so 300 s to go",
        {
            series("queue_depth", "q", state="ready"): "600x20",
            _processed("q", "success"): "0+120x20",
            _processed("q", "retry"): "0+60x20",
            series("jobs_dispatched_total", "q", job_class="A"): "0+60x20",
        },
        {},
        {
            ("10m", processed): {recorded_name(processed, namespace) + labels: 3},
            ("10m", eta): {recorded_name(eta, namespace) + labels: 300},
        },
    )


def tests(settings: Settings) -> dict[str, Any]:
    """The test file of ``promtool test rules``."""
    cases = (
        _FAST_BURN, _SLOW_BURN, _RECOVERED, _STUCK, _AGE, _WORKERS, _DEAD, _LEDGER, *WAITING, *_EXPORTER,
        _recordings(settings.namespace),
    )  # fmt: skip
    return {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "group_eval_order": ["rf-jobs-queues", "rf-jobs-error-ratios", "rf-jobs-alerts"],
        "tests": [case.test(settings) for case in cases],
    }
