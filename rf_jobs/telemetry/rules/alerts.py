"""The alerts. Each name has a runbook under ``docs/runbooks/``, a promtool test that it fires, and one that it doesn't.

``severity``: page wakes somebody, ticket waits for the morning, none is the heartbeat. ``scope`` says what an alert is
about: a stale exporter mutes everything that only the store tells (``queue``, ``schedule``, ``store``), since nothing is known
of it then. A ``worker`` tells of itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rf_jobs.telemetry.promql import renamed
from rf_jobs.telemetry.rules.objectives import JOB, Objectives

QUEUE = "{{ $labels.queue }}"
SCHEDULE = "{{ $labels.schedule }}"


@dataclass(frozen=True)
class Alert:
    """One rule; several may share a name."""

    name: str
    severity: Literal["page", "ticket", "info", "none"]
    scope: Literal["queue", "schedule", "store", "worker", "exporter", "watchdog"]
    holds: str
    """How long the expression must hold; empty for at once."""
    expr: str
    summary: str
    description: str
    """Says the value."""
    keep_firing: str = ""
    window: str = ""
    """Tells rules of one name apart."""

    def rule(self, settings: Objectives) -> dict[str, Any]:
        rule: dict[str, Any] = {"alert": self.name, "expr": renamed(self.expr, settings.namespace)}
        if self.holds:
            rule["for"] = self.holds
        if self.keep_firing:
            rule["keep_firing_for"] = self.keep_firing
        rule["labels"] = {"severity": self.severity, "scope": self.scope}
        if self.window:
            rule["labels"]["window"] = self.window
        rule["annotations"] = {
            "summary": self.summary,
            "description": self.description,
            "runbook_url": f"{settings.runbook_url}/{self.name}.md",
            "dashboard_url": self._dashboard(settings),
        }
        return rule

    def _dashboard(self, settings: Objectives) -> str:
        url = f"{settings.grafana_url}/d/rfjobs-overview"
        if self.scope in ("exporter", "watchdog"):
            return url
        url += "?var-cluster={{ $labels.cluster | urlquery }}"
        return url + "&var-queue={{ $labels.queue | urlquery }}" if self.scope == "queue" else url


def _burn(budget: float) -> tuple[Alert, ...]:
    """Burn rates and windows as in the SRE workbook: how fast the 30 days' budget goes, over a long and a short window."""
    rates: tuple[tuple[Literal["page", "ticket"], str, str, str, float], ...] = (
        ("page", "2m", "1h", "5m", 14.4),
        ("page", "15m", "6h", "30m", 6),
        ("ticket", "1h", "1d", "2h", 3),
        ("ticket", "3h", "3d", "6h", 1),
    )
    return tuple(
        Alert(
            name="RFJobsErrorBudgetBurn",
            severity=severity,
            scope="queue",
            holds=holds,
            expr=f"queue:jobs_errors:ratio_rate{long} > ({rate:g} * {budget:g})"
            f" and queue:jobs_errors:ratio_rate{short} > ({rate:g} * {budget:g})",
            summary=f"Queue {QUEUE} burns its error budget at {rate:g} times the pace that lasts",
            description=f"{{{{ $value | humanizePercentage }}}} of the jobs of queue {QUEUE} that ended in the last {long}"
            f" died; the objective allows {budget * 100:g}%.",
            keep_firing="5m",
            window=f"{long}/{short}",
        )
        for severity, holds, long, short, rate in rates
    )


_STUCK = Alert(
    name="RFJobsQueueStuck",
    severity="page",
    scope="queue",
    holds="5m",
    expr='max by (cluster, queue) (queue_depth{state="ready"}) > 0'
    ' and sum by (cluster, queue) (increase(queue_events_total{event="started"}[10m])) == 0'
    " unless on (cluster, queue) queue_paused == 1",
    summary=f"Queue {QUEUE} has ready jobs and starts none",
    description=f"Ready jobs of queue {QUEUE}: {{{{ $value }}}}. It is not paused, and none started in 10 minutes.",
)
_AGE = Alert(
    name="RFJobsQueueAgeHigh",
    severity="page",
    scope="queue",
    holds="5m",
    expr="max by (cluster, queue) (queue_oldest_job_age_seconds)"
    " > max by (cluster, queue) (rf_queue_age_objective_seconds)",
    summary=f"Queue {QUEUE} is later than its objective",
    description=f"The oldest ready job of queue {QUEUE} has waited {{{{ $value | humanizeDuration }}}},"
    " longer than queue_age_objective_seconds allows.",
)
_NO_WORKERS = Alert(
    name="RFJobsNoWorkers",
    severity="page",
    scope="queue",
    holds="5m",
    expr="queue:queue_depth:ready > 0 unless on (cluster, queue) sum by (cluster, queue) (worker_slots) > 0",
    summary=f"No worker serves queue {QUEUE}",
    description=f"Ready jobs of queue {QUEUE}: {{{{ $value }}}}. No live worker lists the queue.",
)
_DEAD = Alert(
    name="RFJobsDeadLetterGrowing",
    severity="ticket",
    scope="queue",
    holds="",
    expr='sum by (cluster, queue) (increase(queue_events_total{event="dead"}[15m])) > 0'
    ' and sum by (cluster, queue) (queue_depth{state="dead"}) > 0',
    summary=f"Jobs of queue {QUEUE} die",
    description=f"New dead letters of queue {QUEUE} in the last 15 minutes: about {{{{ $value | humanize }}}}.",
)
_LEDGER = Alert(
    name="RFJobsLedgerMismatch",
    severity="page",
    scope="queue",
    holds="10m",
    expr="rf_ledger_imbalance_jobs > 0",
    summary=f"The ledger of queue {QUEUE} does not add up",
    description=f"Jobs of queue {QUEUE} lost or doubled: {{{{ $value }}}}. What came in is not what is there.",
)
_PARKED = Alert(
    name="RFJobsParked",
    severity="ticket",
    scope="queue",
    holds="15m",
    expr='max by (cluster, queue) (queue_depth{state="parked"}) > 0',
    summary=f"Jobs of queue {QUEUE} are parked, and nobody takes them",
    description=f"Parked jobs of queue {QUEUE}: {{{{ $value }}}}. For 15 minutes no worker has had the class, the version or"
    " the key that they need; after park_ttl_seconds they are dead letters.",
)


def _dead_of(reason: str) -> str:
    """How many died of it in the last 15 minutes. The first of its kind begins its series, which ``increase`` does not count; so
    there must be new dead letters too, or all that were there before Prometheus looked would count."""
    total = f'sum by (cluster, queue) (jobs_failed_total{{reason="{reason}"}})'
    before = f'sum by (cluster, queue) (jobs_failed_total{{reason="{reason}"}} offset 15m)'
    return (
        f"({total} - ({before} or 0 * {total})) > 0"
        ' and sum by (cluster, queue) (increase(queue_events_total{event="dead"}[15m])) > 0'
    )


_FORGED = Alert(
    name="RFJobsForged",
    severity="page",
    scope="queue",
    holds="",
    expr=_dead_of("forged"),
    summary=f"Jobs of queue {QUEUE} were refused for their signature",
    description=f"Jobs of queue {QUEUE} that nobody with a key has signed, buried unread in the last 15 minutes:"
    " {{ $value }}.",
)
_UNOPENED = Alert(
    name="RFJobsUnopened",
    severity="ticket",
    scope="queue",
    holds="",
    expr=_dead_of("unopened"),
    summary=f"Jobs of queue {QUEUE} could not be opened",
    description=f"Jobs of queue {QUEUE} that died in the last 15 minutes because their payload was damaged or gone, or its"
    " key or store was not to be had: {{ $value }}.",
)
_CRASH_LOOP = Alert(
    name="RFJobsWorkerCrashLoop",
    severity="ticket",
    scope="worker",
    holds="",
    expr="sum by (cluster, instance)"
    ' (increase(rf_supervisor_process_ends_total{reason=~"crashed|not_started"}[15m])) > 3',
    summary="Processes of worker {{ $labels.instance }} crash again and again",
    description="Processes of worker {{ $labels.instance }} that crashed or could not start in the last 15 minutes: about"
    " {{ $value | humanize }}.",
    keep_firing="5m",
)
_LATE_SCHEDULE = Alert(
    name="RFJobsScheduleMissed",
    severity="page",
    scope="schedule",
    holds="2m",
    expr="time() - max by (cluster, schedule) (rf_schedule_next_run_timestamp_seconds) > 60",
    summary=f"Schedule {SCHEDULE} is late",
    description=f"Schedule {SCHEDULE} was due {{{{ $value | humanizeDuration }}}} ago, and no scheduler has run it.",
)
_PASSED_OVER = Alert(
    name="RFJobsScheduleMissed",
    severity="ticket",
    scope="schedule",
    holds="",
    expr="sum by (cluster, schedule) (increase(rf_schedule_missed_total[15m])) > 0",
    summary=f"Schedule {SCHEDULE} has left out ticks",
    description=f"Ticks of schedule {SCHEDULE} that were passed over, or could not be dispatched, in the last 15 minutes:"
    " about {{ $value | humanize }}. Nobody makes up for them.",
    window="15m",
)
_NO_SCHEDULER = Alert(
    name="RFJobsNoScheduler",
    severity="page",
    scope="schedule",
    holds="2m",
    expr="max by (cluster) (rf_schedulers) == 0"
    " and on (cluster) count by (cluster) (rf_schedule_next_run_timestamp_seconds) > 0",
    summary="No scheduler is alive in {{ $labels.cluster }}",
    description="Live schedulers of {{ $labels.cluster }}: {{ $value }}. There are schedules, and none of them runs.",
)
# Where any is drawn the number falls between two looks, however many come after it.
_CONSEQUENCES = Alert(
    name="RFJobsConsequencesUndrawn",
    severity="ticket",
    scope="store",
    holds="10m",
    expr="max by (cluster) (rf_consequences_skipped) > 0 or max by (cluster) (rf_consequences_unsettled) > 0"
    " and max by (cluster) (resets(rf_consequences_unsettled[5m])) == 0",
    summary="What follows from the ends of jobs in {{ $labels.cluster }} is not drawn",
    description="Consequences that could not be drawn, or that nobody has begun to draw for 10 minutes: {{ $value }}. Batches,"
    " chains and jobs that depend on others may wait for ever.",
)
# Only the exporters' own scrape job: a worker that can't be scraped must not mute what is known about queues. Nor must one of
# several exporters, as long as another one reads the store (docs/decisions/0014-one-exporter.md).
_STALE = Alert(
    name="RFJobsExporterStale",
    severity="page",
    scope="exporter",
    holds="2m",
    expr="time() - max by (cluster) (rf_exporter_last_success_timestamp_seconds) > 60"
    f' or max by (cluster) (up{{job="{JOB}"}}) == 0',
    summary="The exporter of {{ $labels.cluster }} is blind",
    description="No exporter of {{ $labels.cluster }} has read the store for more than a minute (value:"
    " {{ $value | humanize }} seconds), or none can be scraped (value: 0). Alerts about queues are muted.",
)
_ABSENT = Alert(
    name="RFJobsMetricsAbsent",
    severity="page",
    scope="exporter",
    holds="10m",
    expr="absent(rf_exporter_last_success_timestamp_seconds)",
    summary="Prometheus has no metrics of rf-jobs",
    description="absent() is {{ $value }}: no exporter has been scraped for 10 minutes. No other alert of rf-jobs can fire.",
)
_WATCHDOG = Alert(
    name="RFJobsWatchdog",
    severity="none",
    scope="watchdog",
    holds="",
    expr="vector(1)",
    summary="Alerting works",
    description="Always firing (value: {{ $value }}); whoever receives it should worry when it stops.",
)


def alerts(settings: Objectives) -> tuple[Alert, ...]:
    """Every alert, with this installation's objectives."""
    burn = _burn(settings.error_budget)
    return (
        *burn, _STUCK, _AGE, _NO_WORKERS, _DEAD, _PARKED, _FORGED, _UNOPENED, _LEDGER, _CONSEQUENCES, _CRASH_LOOP,
        _LATE_SCHEDULE, _PASSED_OVER, _NO_SCHEDULER, _STALE, _ABSENT, _WATCHDOG,
    )  # fmt: skip
