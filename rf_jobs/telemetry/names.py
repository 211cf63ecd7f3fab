"""The one table of metric names. The cells, the exposition, the exporter, the dashboards, the alert rules, their tests
and ``docs/operations/metrics.md`` are made from it or checked against it.

Labels are queues, job classes and small enumerations; never a job id, a worker, a host, a message, a tenant. What jobs do
stands in four families (``jobs_ job_ queue_ worker_``), the plumbing under ``rf_``. One ``namespace`` setting renames
everything, see :func:`metric_name`.

``source`` says who measures: ``worker``, ``dispatcher`` and ``scheduler`` keep cells and flush their deltas through the
store (or serve them themselves); ``exporter`` reads the store; ``supervisor`` shows them on its own page alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "info"]
Source = Literal["worker", "dispatcher", "scheduler", "exporter", "supervisor"]

# Bucket sets, in seconds, without +Inf.
RUN = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
WAIT = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 21600.0)
OP = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
LAG = (*OP, *(bound for bound in WAIT if bound > OP[-1]))
ATTEMPTS = (1.0, 2.0, 3.0, 5.0, 10.0, 25.0)

# Values of the enumerated labels.
DEPTH_STATES = ("ready", "scheduled", "blocked", "parked", "running", "dead")
EVENTS = (
    "dispatched", "scheduled", "promoted", "started", "completed", "retried", "dead", "replayed", "discarded",
    "cancelled", "deduplicated", "released", "reclaimed", "blocked", "unblocked", "expired", "snoozed", "parked",
    "unparked", "evicted", "restored", "reprioritized", "rescheduled",
)  # fmt: skip
OUTCOMES = ("success", "retry", "dead", "cancelled", "released", "lost")
FAILURE_REASONS = ("exception", "timeout", "lost", "decode", "unknown_class", "forged", "unopened", "dependency")
UNOPENED = ("tampered", "payload_lost", "unknown_key", "no_payload_store")
"""Reasons of burials that the metrics call ``unopened``: they are rare, and each label value is a series for every class."""
RELEASE_REASONS = ("rate_limit", "concurrency", "snooze", "shutdown")
CANCEL_STAGES = ("queued", "running")
FETCH_RESULTS = ("hit", "empty", "error")
WORKER_STATES = ("running", "quiet", "stopping", "stale")
REDIS_OPS = ("dispatch", "fetch", "ack", "extend", "reclaim", "flush", "admin", "read", "connect")
COLLECT_STAGES = ("survey", "metrics", "workers", "schedules", "workflows", "redis", "memory")
TICK_RESULTS = ("fired", "overlap", "missed", "duplicate", "error")
DROPPED_KINDS = ("series", "span", "delta")
WORKFLOW_KINDS = ("batch", "chain")
WORKFLOW_RESULTS = ("completed", "failed", "cancelled")
PROCESS_STATES = ("wanted", "alive", "ready")
PROCESS_ENDS = ("crashed", "not_started", "recycled", "rolled", "stopped")
SPAN_STATES = ("recorded", "sampled_out", "exported", "failed")

OVERFLOW = "_other"
"""The label value that takes what is over the cap of series or of job classes."""


@dataclass(frozen=True)
class Metric:
    """A metric family: what it is called, what it counts, and how it is cut up."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    unit: str
    source: Source
    buckets: tuple[float, ...] | None = None
    values: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    """The values of those labels that are enumerated; every such series is there from the start, at 0."""
    status: Literal["stable", "experimental"] = "stable"

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its samples, as a query names them."""
        if self.kind == "histogram":
            return tuple(self.name + suffix for suffix in ("_bucket", "_sum", "_count"))
        return (self.name,)


_QUEUE = ("queue",)
_CLASS = ("queue", "job_class")

# ---------------------------------------------------------------- jobs: rates, errors, durations

JOBS_DISPATCHED = Metric(
    "jobs_dispatched_total", "counter", "Jobs that a client dispatched.", _CLASS, "jobs", "dispatcher"
)  # fmt: skip
JOBS_PROCESSED = Metric(
    "jobs_processed_total", "counter", "Attempts that ended, by how; their sum is all attempts.",
    (*_CLASS, "outcome"), "attempts", "worker", values={"outcome": OUTCOMES},
)  # fmt: skip
JOBS_FAILED = Metric(
    "jobs_failed_total", "counter", "Attempts that failed, by why.",
    (*_CLASS, "reason"), "attempts", "worker", values={"reason": FAILURE_REASONS},
)  # fmt: skip
JOB_DURATION = Metric(
    "job_duration_seconds", "histogram", "How long a handler ran, for each attempt.", _CLASS, "seconds", "worker", RUN
)  # fmt: skip
JOB_QUEUE_WAIT = Metric(
    "job_queue_wait_seconds", "histogram", "From eligible to run (a delay is over) to started, for each attempt.",
    _CLASS, "seconds", "worker", WAIT,
)  # fmt: skip
JOB_END_TO_END = Metric(
    "job_end_to_end_seconds", "histogram", "From first eligible to success, retries included.",
    _CLASS, "seconds", "worker", WAIT,
)  # fmt: skip
JOB_PROMOTE_LAG = Metric(
    "job_promote_lag_seconds", "histogram", "From due to ready, for delayed jobs: the greatest of each batch.",
    _QUEUE, "seconds", "worker", LAG,
)  # fmt: skip
JOB_ATTEMPTS = Metric(
    "job_attempts", "histogram", "Attempts that a finished job took.", _CLASS, "attempts", "worker", ATTEMPTS
)  # fmt: skip
JOB_DISPATCH_DURATION = Metric(
    "job_dispatch_duration_seconds", "histogram", "What a dispatch costs its caller.",
    _QUEUE, "seconds", "dispatcher", OP,
)  # fmt: skip
JOBS_RETRIED = Metric(
    "jobs_retried_total", "counter", "Attempts after which another one was scheduled.", _CLASS, "attempts", "worker"
)  # fmt: skip
JOBS_CANCELLED = Metric(
    "jobs_cancelled_total", "counter", "Jobs cancelled, while they waited or while they ran.",
    (*_CLASS, "stage"), "jobs", "worker", values={"stage": CANCEL_STAGES},
)  # fmt: skip
JOBS_RELEASED = Metric(
    "jobs_released_total", "counter", "Runs handed back that are no attempt, by why.",
    (*_CLASS, "reason"), "attempts", "worker", values={"reason": RELEASE_REASONS},
)  # fmt: skip
JOBS_REPLAYED = Metric(
    "jobs_replayed_total", "counter", "Dead letters that an operator put back.", _CLASS, "jobs", "dispatcher"
)  # fmt: skip
JOBS_DEDUPLICATED = Metric(
    "jobs_deduplicated_total", "counter", "Dispatches that found their job there already.",
    _CLASS, "jobs", "dispatcher",
)  # fmt: skip
JOBS_DISPATCH_ERRORS = Metric(
    "jobs_dispatch_errors_total", "counter", "Dispatches that failed, by the kind of error.",
    ("queue", "reason"), "jobs", "dispatcher",
)  # fmt: skip

# ---------------------------------------------------------------- queues: the exact truth, read from the store

QUEUE_DEPTH = Metric(
    "queue_depth", "gauge", "Jobs in the queue by state, all priorities; 0 for an empty queue.",
    ("queue", "state"), "jobs", "exporter", values={"state": DEPTH_STATES},
)  # fmt: skip
QUEUE_EVENTS = Metric(
    "queue_events_total", "counter", "The ledger: every transition, counted in the script that made it.",
    ("queue", "event"), "events", "exporter", values={"event": EVENTS},
)  # fmt: skip
LEDGER_IMBALANCE = Metric(
    "rf_ledger_imbalance_jobs", "gauge",
    "Jobs that the ledger and the queue disagree about, lost or doubled; 0 while all add up, never below.",
    _QUEUE, "jobs", "exporter",
)  # fmt: skip
QUEUE_OLDEST_AGE = Metric(
    "queue_oldest_job_age_seconds", "gauge", "How long the oldest ready job has been ready; 0 if none is.",
    _QUEUE, "seconds", "exporter",
)  # fmt: skip
QUEUE_OLDEST_RUNNING = Metric(
    "queue_oldest_running_seconds", "gauge", "How long the longest-running job has run; 0 if none does.",
    _QUEUE, "seconds", "exporter",
)  # fmt: skip
QUEUE_PAUSED = Metric(
    "queue_paused", "gauge", "1 while the queue is paused, else 0.", _QUEUE, "", "exporter"
)  # fmt: skip
QUEUE_AGE_OBJECTIVE = Metric(
    "rf_queue_age_objective_seconds", "gauge", "The age of the oldest ready job that the configuration allows.",
    _QUEUE, "seconds", "exporter",
)  # fmt: skip
QUEUE_MEMORY = Metric(
    "rf_queue_memory_bytes", "gauge",
    "About how much of the server's memory the queue takes, from a few jobs of each state; looked at once a minute.",
    _QUEUE, "bytes", "exporter",
)  # fmt: skip
DEAD_LETTER_AGE = Metric(
    "rf_dead_letter_oldest_age_seconds", "gauge", "How long the oldest dead letter has lain there; 0 if none does.",
    _QUEUE, "seconds", "exporter",
)  # fmt: skip

# ---------------------------------------------------------------- workers

WORKER_UTILIZATION = Metric(
    "worker_utilization", "gauge", "Share of the slots' time spent in handlers over the last beat, 0 to 1.",
    (), "ratio", "worker",
)  # fmt: skip
WORKER_SLOTS = Metric(
    "worker_slots", "gauge", "Jobs that the live workers on this queue can run at once.", _QUEUE, "slots", "worker"
)  # fmt: skip
WORKER_BUSY_SLOTS = Metric(
    "worker_busy_slots", "gauge", "Slots in use on the live workers on this queue.", _QUEUE, "slots", "worker"
)  # fmt: skip
WORKER_BUSY_SECONDS = Metric(
    "worker_busy_seconds_total", "counter", "Slot-seconds spent in handlers.", (), "seconds", "worker"
)  # fmt: skip
WORKER_LOOP_LAG = Metric(
    "worker_event_loop_lag_seconds", "histogram", "How late the event loop woke up.", (), "seconds", "worker", OP
)  # fmt: skip
WORKER_FETCHES = Metric(
    "worker_fetches_total", "counter", "Fetches, by what they brought.",
    ("result",), "fetches", "worker", values={"result": FETCH_RESULTS},
)  # fmt: skip
WORKER_FETCHED_JOBS = Metric(
    "worker_fetched_jobs_total", "counter", "Jobs that fetches brought.", (), "jobs", "worker"
)  # fmt: skip
WORKER_EXTENSION_FAILURES = Metric(
    "worker_lease_extension_failures_total", "counter", "Leases that a heartbeat found lost while their jobs ran.",
    (), "leases", "worker",
)  # fmt: skip
WORKERS = Metric(
    "rf_workers", "gauge", "Worker processes by state.",
    ("state",), "processes", "exporter", values={"state": WORKER_STATES},
)  # fmt: skip

SUPERVISOR_PROCESSES = Metric(
    "rf_supervisor_processes", "gauge", "Worker processes of this supervisor: wanted, alive, and making progress.",
    ("state",), "processes", "supervisor", values={"state": PROCESS_STATES},
)  # fmt: skip
SUPERVISOR_PROCESS_ENDS = Metric(
    "rf_supervisor_process_ends_total", "counter", "Worker processes of this supervisor that have ended, by why.",
    ("reason",), "processes", "supervisor", values={"reason": PROCESS_ENDS},
)  # fmt: skip

# ---------------------------------------------------------------- schedules

SCHEDULERS = Metric(
    "rf_schedulers", "gauge", "Schedulers that live; any number may run.", (), "processes", "exporter"
)  # fmt: skip
SCHEDULES = Metric(
    "rf_schedules", "gauge", "Schedules; those that run next have series of their own, up to a thousand.",
    (), "schedules", "exporter",
)  # fmt: skip
SCHEDULE_TICKS = Metric(
    "rf_schedule_ticks_total", "counter",
    "Ticks of a schedule: dispatched, not since its unique job was there still, passed over, found done by another scheduler, or"
    " impossible to dispatch.",
    ("schedule", "result"), "ticks", "scheduler", values={"result": TICK_RESULTS},
)  # fmt: skip
SCHEDULE_TICK_LAG = Metric(
    "rf_schedule_tick_lag_seconds", "histogram", "How late ticks were dispatched.", (), "seconds", "scheduler", LAG
)  # fmt: skip
SCHEDULE_NEXT_RUN = Metric(
    "rf_schedule_next_run_timestamp_seconds", "gauge",
    "When the schedule is due, in Unix time; absent while it is paused, orphaned or at its end.",
    ("schedule",), "seconds", "exporter",
)  # fmt: skip
SCHEDULE_LAST_RUN = Metric(
    "rf_schedule_last_run_timestamp_seconds", "gauge", "When it last dispatched a job, in Unix time.",
    ("schedule",), "seconds", "exporter",
)  # fmt: skip
SCHEDULE_LAST_SUCCESS = Metric(
    "rf_schedule_last_success_timestamp_seconds", "gauge", "When a job of it last completed, in Unix time.",
    ("schedule",), "seconds", "exporter",
)  # fmt: skip
SCHEDULE_LAG = Metric(
    "rf_schedule_lag_seconds", "gauge", "How late its last run was.", ("schedule",), "seconds", "exporter"
)  # fmt: skip
SCHEDULE_MISSED = Metric(
    "rf_schedule_missed_total", "counter", "Its ticks that were passed over, or could not be dispatched.",
    ("schedule",), "ticks", "exporter",
)  # fmt: skip

# ---------------------------------------------------------------- batches, chains, consequences, limits

BATCHES_OPEN = Metric(
    "rf_batches_open", "gauge", "Batches and chains that are not over.", (), "batches", "exporter"
)  # fmt: skip
BATCH_PENDING = Metric(
    "rf_batch_pending_jobs", "gauge", "Members of open batches and chains that have not ended; of the oldest thousand.",
    (), "jobs", "exporter",
)  # fmt: skip
WORKFLOWS_FINISHED = Metric(
    "rf_workflows_finished_total", "counter", "Batches and chains that have ended, by how.",
    ("kind", "result"), "batches", "worker", values={"kind": WORKFLOW_KINDS, "result": WORKFLOW_RESULTS},
)  # fmt: skip
WORKFLOW_DURATION = Metric(
    "rf_workflow_duration_seconds", "histogram", "From dispatch to the end of a batch or chain.",
    ("kind",), "seconds", "worker", WAIT, values={"kind": WORKFLOW_KINDS},
)  # fmt: skip
CONSEQUENCES_UNSETTLED = Metric(
    "rf_consequences_unsettled", "gauge",
    "Consequences of what happened to jobs, for others, that are still to be drawn: 0, but for moments.",
    (), "consequences", "exporter",
)  # fmt: skip
CONSEQUENCES_SKIPPED = Metric(
    "rf_consequences_skipped", "gauge",
    "Consequences that could not be drawn and wait for somebody to look at them; up to a thousand of each shard.",
    (), "consequences", "exporter",
)  # fmt: skip
THROTTLED = Metric(
    "rf_rate_limit_throttled_total", "counter", "Jobs that a limit, or a pause of their class or tag, kept from starting.",
    ("limiter",), "jobs", "worker",
)  # fmt: skip
LIMIT_USED = Metric(
    "rf_rate_limit_used_ratio", "gauge", "Share of a concurrency limit without keys that is taken, 0 to 1.",
    ("limiter",), "ratio", "exporter",
)  # fmt: skip
LIMIT_HELD = Metric(
    "rf_rate_limit_held_jobs", "gauge", "Jobs that a concurrency limit without keys holds back.",
    ("limiter",), "jobs", "exporter",
)  # fmt: skip

# ---------------------------------------------------------------- the server

REDIS_OP_DURATION = Metric(
    "rf_redis_op_duration_seconds", "histogram", "Round trips to the server, by operation.",
    ("op",), "seconds", "worker", OP, values={"op": REDIS_OPS},
)  # fmt: skip
REDIS_OP_ERRORS = Metric(
    "rf_redis_op_errors_total", "counter", "Round trips that failed, by operation and kind of error.",
    ("op", "error"), "operations", "worker",
)  # fmt: skip
REDIS_USED_MEMORY = Metric(
    "rf_redis_used_memory_bytes", "gauge", "Memory that the server uses.", (), "bytes", "exporter"
)  # fmt: skip
REDIS_MAX_MEMORY = Metric(
    "rf_redis_maxmemory_bytes", "gauge", "The server's memory limit; 0 for none.", (), "bytes", "exporter"
)  # fmt: skip
REDIS_EVICTED_KEYS = Metric(
    "rf_redis_evicted_keys_total", "counter", "Keys that the server threw away: jobs may be among them.",
    (), "keys", "exporter",
)  # fmt: skip
REDIS_CLIENTS = Metric(
    "rf_redis_connected_clients", "gauge", "Connections to the server.", (), "connections", "exporter"
)  # fmt: skip
REDIS_EVICTS = Metric(
    "rf_redis_maxmemory_evicts", "gauge", "1 if the server's eviction policy may throw jobs away, else 0.",
    (), "", "exporter",
)  # fmt: skip
REDIS_REPLICATION_LAG = Metric(
    "rf_redis_replication_lag_seconds", "gauge",
    "Since when the replica that is furthest behind has acknowledged nothing; 0 without replicas.",
    (), "seconds", "exporter",
)  # fmt: skip

# ---------------------------------------------------------------- the exporter and the telemetry itself

EXPORTER_ACTIVE = Metric(
    "rf_exporter_active", "gauge", "1 on the exporter that shows the metrics, 0 on one that stands by.",
    (), "", "exporter",
)  # fmt: skip

EXPORTER_COLLECT = Metric(
    "rf_exporter_collect_duration_seconds", "gauge", "How long the last reading of the store took.",
    (), "seconds", "exporter",
)  # fmt: skip
EXPORTER_ERRORS = Metric(
    "rf_exporter_collect_errors_total", "counter", "Readings of the store that failed, by stage.",
    ("stage",), "readings", "exporter", values={"stage": COLLECT_STAGES},
)  # fmt: skip
EXPORTER_LAST_SUCCESS = Metric(
    "rf_exporter_last_success_timestamp_seconds", "gauge", "When the store was last read whole, in Unix time.",
    (), "seconds", "exporter",
)  # fmt: skip
TELEMETRY_DROPPED = Metric(
    "rf_telemetry_dropped_total", "counter",
    "Telemetry given up: look-ups of a series over the cap, spans, flushes of deltas.",
    ("kind",), "items", "worker", values={"kind": DROPPED_KINDS},
)  # fmt: skip
TELEMETRY_SPANS = Metric(
    "rf_telemetry_spans_total", "counter", "Spans, by what became of them.",
    ("state",), "spans", "worker", values={"state": SPAN_STATES},
)  # fmt: skip
BUILD_INFO = Metric(
    "rf_build_info", "info", "Versions of rf-jobs, Python and the server.",
    ("version", "python", "redis"), "", "exporter",
)  # fmt: skip

METRICS: tuple[Metric, ...] = tuple(each for each in list(globals().values()) if isinstance(each, Metric))
"""The table, in the order above."""

BY_NAME: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in METRICS})

BY_SERIES: Mapping[str, Metric] = MappingProxyType({name: metric for metric in METRICS for name in metric.series})
"""Metrics by the names that a query may use."""


def measured_by(*sources: Source) -> tuple[Metric, ...]:
    """The metrics that these processes keep cells of."""
    return tuple(metric for metric in METRICS if metric.source in sources)


_NAMESPACE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")


def metric_name(metric: Metric | str, namespace: str = "") -> str:
    """The name under a namespace: ``jobs_failed_total`` is ``rf_jobs_failed_total`` under ``rf``.

    A name that has the prefix already keeps it once. Raises ValueError for a namespace that no metric name may start with.
    """
    name = metric if isinstance(metric, str) else metric.name
    if not namespace:
        return name
    if not _NAMESPACE.match(namespace):
        raise ValueError(
            f"namespace is {namespace!r}; use letters, digits and _, not starting with a digit, or nothing"
        )
    return name if name.startswith(namespace + "_") else f"{namespace}_{name}"
