"""RF Jobs / Overview: is anything late, does anything fail, is anything lost; then where; then what waits for something else."""

from __future__ import annotations

from rf_jobs.telemetry.dashboards.model import Dashboard, Panel, Query, quantiles
from rf_jobs.telemetry.dashboards.waiting import ROWS

_GOOD_TO_BAD = ((None, "green"), (1, "orange"), (100, "red"))


_NUMBERS = (
    Panel(
        "Jobs finished / s",
        "stat",
        (Query("sum(rate(jobs_processed_total{$Q}[$I]))"),),
        "Attempts that ended, whatever their outcome.",
        unit="suffix: /s",
        width=3,
        height=4,
    ),
    Panel(
        "Failure ratio",
        "stat",
        (Query("sum(rate(jobs_failed_total{$Q}[$I])) / sum(rate(jobs_processed_total{$Q}[$I]))"),),
        "Share of the attempts that failed; retries are counted, so a healed job shows here too.",
        unit="percentunit",
        width=3,
        height=4,
        steps=((None, "green"), (0.01, "orange"), (0.05, "red")),
        decimals=2,
    ),
    Panel(
        "Oldest ready job",
        "stat",
        (Query("max(queue_oldest_job_age_seconds{$Q})"),),
        "How late the latest job is. Each queue's objective is on the alert RFJobsQueueAgeHigh.",
        unit="s",
        width=3,
        height=4,
        steps=((None, "green"), (60, "orange"), (300, "red")),
    ),
    Panel(
        "Ready now",
        "stat",
        (Query('sum(queue_depth{$Q, state="ready"})'),),
        "Jobs that could run this moment.",
        width=3,
        height=4,
    ),
    Panel(
        "Dead letters",
        "stat",
        (Query('sum(queue_depth{$Q, state="dead"})'),),
        "Jobs that gave up; they wait for an operator.",
        width=3,
        height=4,
        steps=_GOOD_TO_BAD,
    ),
    Panel(
        "Worker utilization",
        "gauge",
        (Query("avg(worker_utilization{$C})"),),
        "Share of the slots' time spent in handlers. Near 1, jobs begin to wait.",
        unit="percentunit",
        width=3,
        height=4,
        steps=((None, "green"), (0.8, "orange"), (0.95, "red")),
        limits=(0, 1),
    ),
    Panel(
        "Error budget left (30d)",
        "stat",
        (
            Query(
                '1 - sum(increase(queue_events_total{$Q, event="dead"}[30d]))'
                ' / (0.005 * sum(increase(queue_events_total{$Q, event=~"completed|dead"}[30d])))'
            ),
        ),
        "Of the 0.5 % of jobs that may end dead in 30 days: what is left. Below 0 the objective is missed.",
        unit="percentunit",
        width=3,
        height=4,
        steps=((None, "red"), (0, "orange"), (0.25, "green")),
        decimals=1,
    ),
    Panel(
        "Ledger imbalance",
        "stat",
        (Query("sum(rf_ledger_imbalance_jobs{$Q})"),),
        "Jobs lost or doubled. Anything but 0 is a fault of ours or of the store.",
        width=3,
        height=4,
        steps=((None, "green"), (1, "red")),
    ),
)

_OVER_TIME = (
    Panel(
        "Dispatched vs finished",
        "timeseries",
        (
            Query("sum(rate(jobs_dispatched_total{$Q}[$I]))", "dispatched"),
            Query("sum by (outcome) (rate(jobs_processed_total{$Q}[$I]))", "{{outcome}}"),
        ),
        "What comes in and what goes out. Where in stays above out, the backlog grows.",
        unit="suffix: /s",
    ),
    Panel(
        "Depth by state",
        "timeseries",
        (Query("sum by (state) (queue_depth{$Q})", "{{state}}"),),
        "Where the jobs stand.",
    ),
    Panel(
        "Queue wait p50/p95/p99",
        "timeseries",
        quantiles("job_queue_wait_seconds"),
        "From eligible to started. The diamonds are exemplars: they open the trace.",
        unit="s",
    ),
    Panel(
        "Run time p50/p95/p99",
        "timeseries",
        quantiles("job_duration_seconds"),
        "In the handler. The diamonds are exemplars: they open the trace.",
        unit="s",
    ),
    Panel(
        "Queues",
        "table",
        (
            Query('sum by (queue) (queue_depth{$Q, state="ready"})'),
            Query("max by (queue) (queue_oldest_job_age_seconds{$Q})"),
            Query("queue:jobs_processed:rate5m{$Q}"),
            Query("queue:drain_eta_seconds:estimate{$Q}"),
        ),
        "Per queue: the backlog, how late it is, how fast it is worked off, and when it would be empty at this pace.",
        height=9,
        columns=(
            ("A", "Ready", "short"),
            ("B", "Oldest", "s"),
            ("C", "Finished / s", "suffix: /s"),
            ("D", "Empty in", "s"),
        ),
        key="queue",
    ),
    Panel(
        "Worst job classes by failures",
        "table",
        (Query("topk(10, sum by (queue, job_class, reason) (increase(jobs_failed_total{$Q}[$__range])))"),),
        "Which code fails, and why, over the time shown.",
        height=9,
        columns=(("A", "Failed attempts", "short"),),
    ),
)

DASHBOARD = Dashboard(
    uid="rfjobs-overview",
    title="RF Jobs / Overview",
    describes="Is anything late, does anything fail, is anything lost? Made by python -m grafana.generate; edit the code.",
    panels=(*_NUMBERS, *_OVER_TIME, *ROWS),
)
