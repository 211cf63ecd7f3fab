"""The lower rows of the Overview: what waits for a time, for other jobs, or for a worker that can run it."""

from __future__ import annotations

from rf_jobs.telemetry.dashboards.model import Panel, Query, Row, quantiles

_NONE_IS_GOOD = ((None, "green"), (1, "orange"))
_UNREAD = 'jobs_failed_total{$Q, reason=~"forged|unopened"}'
"""Such a series may begin with its first job, which ``increase`` does not count."""
_NEXT_RUN = "max by (schedule) (rf_schedule_next_run_timestamp_seconds{$C})"

_SCHEDULES = (
    Row("Schedules"),
    Panel(
        "Schedulers alive",
        "stat",
        (Query("max(rf_schedulers{$C})"),),
        "Any number may run. With none, no schedule does; where there are no schedules, none is needed.",
        width=6,
        height=4,
        steps=((None, "orange"), (1, "green")),
    ),
    Panel(
        "All schedules",
        "stat",
        (Query("sum(rf_schedules{$C})"),),
        "All of them, those included that do not run.",
        width=6,
        height=4,
    ),
    Panel(
        "Next run overdue",
        "stat",
        (Query("clamp_min(max(time() - rf_schedule_next_run_timestamp_seconds{$C}), 0)"),),
        "How long the schedule that is latest should have run already. 0 while all are on time.",
        unit="s",
        width=6,
        height=4,
        steps=((None, "green"), (10, "orange"), (60, "red")),
    ),
    Panel(
        "Ticks missed",
        "stat",
        (Query("sum(increase(rf_schedule_missed_total{$C}[$__range]))"),),
        "Passed over, or impossible to dispatch, over the time shown. Nobody makes up for them.",
        width=6,
        height=4,
        steps=_NONE_IS_GOOD,
        decimals=0,
    ),
    Panel(
        "Ticks by result",
        "timeseries",
        (Query("sum by (result) (increase(rf_schedule_ticks_total{$C}[$I]))", "{{result}}"),),
        "What became of them, in each step. duplicate is fine: another scheduler was faster.",
        width=8,
    ),
    Panel(
        "Lag of ticks p50/p95/p99",
        "timeseries",
        quantiles("rf_schedule_tick_lag_seconds", "$C"),
        "From due to dispatched.",
        unit="s",
        width=8,
    ),
    Panel(
        "Next runs",
        "table",
        (
            Query(f"{_NEXT_RUN} * 1000"),
            Query(f"clamp_min(time() - {_NEXT_RUN}, 0)"),
            Query("max by (schedule) (rf_schedule_lag_seconds{$C})"),
            Query("sum by (schedule) (increase(rf_schedule_missed_total{$C}[$__range]))"),
        ),
        "Those that run next, up to a thousand; one that is paused, orphaned or at its end has no next run.",
        width=8,
        columns=(
            ("A", "Next run", "dateTimeFromNow"),
            ("B", "Overdue", "s"),
            ("C", "Last run late by", "s"),
            ("D", "Ticks missed", "short"),
        ),
        key="schedule",
    ),
)

_WORKFLOWS = (
    Row("Parked jobs, batches and chains"),
    Panel(
        "Parked jobs",
        "stat",
        (Query('sum(queue_depth{$Q, state="parked"})'),),
        "No worker has the class, the version or the key that they need. rf-jobs queues says which.",
        width=4,
        height=4,
        steps=_NONE_IS_GOOD,
    ),
    Panel(
        "Refused or not opened",
        "stat",
        (Query(f"sum({_UNREAD} - ({_UNREAD} offset $__range or 0 * {_UNREAD}))"),),
        "Not signed by a holder of a key, damaged, or without their key or payload, over the time shown.",
        width=4,
        height=4,
        steps=((None, "green"), (1, "red")),
        decimals=0,
    ),
    Panel(
        "Open batches and chains",
        "stat",
        (Query("sum(rf_batches_open{$C})"),),
        "Those that are not over.",
        width=4,
        height=4,
    ),
    Panel(
        "Their members to come",
        "stat",
        (Query("sum(rf_batch_pending_jobs{$C})"),),
        "Members of open batches and chains that have not ended; of the oldest thousand.",
        width=4,
        height=4,
    ),
    Panel(
        "Consequences to be drawn",
        "stat",
        (Query("sum(rf_consequences_unsettled{$C})"),),
        "What follows from the ends of jobs for batches, chains and dependents, and is not done yet. 0 but for moments.",
        width=4,
        height=4,
    ),
    Panel(
        "Could not be drawn",
        "stat",
        (Query("sum(rf_consequences_skipped{$C})"),),
        "Consequences that were skipped: something waits for ever. rf-jobs doctor says why.",
        width=4,
        height=4,
        steps=((None, "green"), (1, "red")),
    ),
    Panel(
        "Parked jobs by queue",
        "timeseries",
        (Query('sum by (queue) (queue_depth{$Q, state="parked"})', "{{queue}}"),),
        "A deploy parks jobs for a moment; a line that stays is a class that nobody serves.",
        width=8,
    ),
    Panel(
        "Open batches and chains, and their members",
        "timeseries",
        (
            Query("sum(rf_batches_open{$C})", "open"),
            Query("sum(rf_batch_pending_jobs{$C})", "members to come"),
        ),
        "What only grows waits for something that does not come.",
        width=8,
    ),
    Panel(
        "Consequences",
        "timeseries",
        (
            Query("sum(rf_consequences_unsettled{$C})", "to be drawn"),
            Query("sum(rf_consequences_skipped{$C})", "could not be drawn"),
        ),
        "A large batch leaves many for a moment. A line that never falls means that nobody draws them.",
        width=8,
    ),
)

ROWS: tuple[Panel | Row, ...] = (*_SCHEDULES, *_WORKFLOWS)
