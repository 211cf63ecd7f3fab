"""Every setting: its key, type, default, range and meaning. ``docs/reference/configuration.md`` is made from these tables.

A class is a table of the file; a field is a key. Durations are seconds, sizes are as their names say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

from rf_jobs.words.timing import MAX_DURATION_SECONDS

NO_LIMIT = 2**53
"""The largest whole number that a script can hold; upper bounds from here on are not worth showing."""

Count = Annotated[int, Meta(ge=0, le=NO_LIMIT)]
Positive = Annotated[int, Meta(ge=1, le=NO_LIMIT)]
Seconds = Annotated[float, Meta(ge=0, le=MAX_DURATION_SECONDS)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=MAX_DURATION_SECONDS)]
Port = Annotated[int, Meta(ge=0, le=65535)]
SECRET = {"secret": True}
"""``extra`` of a setting that holds keys: it is shown masked, and is no option of a command."""
Queues = tuple[str, ...] | Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsSettings:
    """What holds for all jobs, where a class or a dispatch says nothing else."""

    redis_url: Annotated[str, Meta(description="the server: redis://, rediss:// or unix://")] = (
        "redis://127.0.0.1:6379/0"
    )
    namespace: Annotated[str, Meta(description="the prefix of all keys; one server may hold several")] = "rf"
    shards: Annotated[
        Annotated[int, Meta(ge=1, le=1024)],
        Meta(
            description="into how many parts the queues are divided; it stays as it is while the namespace holds jobs"
        ),
    ] = 1
    queue_shards: Annotated[
        Mapping[str, Count] | None, Meta(description="queues that are to be in a certain shard, 0 to shards - 1")
    ] = None
    default_queue: Annotated[str, Meta(description="the queue of a class that names none")] = "default"
    max_attempts: Annotated[Positive, Meta(description="how often a job is tried")] = 3
    backoff_seconds: Annotated[Seconds, Meta(description="the pause before a retry")] = 60.0
    timeout_seconds: Annotated[PositiveSeconds, Meta(description="how long an attempt may run")] = 60.0
    max_payload_bytes: Annotated[Positive, Meta(description="a larger job is refused at dispatch")] = 1_048_576
    offload_above_bytes: Annotated[
        Positive | None, Meta(description="a larger payload goes to the payload store; unset keeps all in the server")
    ] = None
    offload_path: Annotated[
        str | None, Meta(description="the payload store: a folder that clients and workers share")
    ] = None
    offload_store: Annotated[
        str | None, Meta(description="another payload store: `module:name` of one, or of a function that makes one")
    ] = None
    offload_grace_seconds: Annotated[
        Seconds, Meta(description="a stored payload whose job has not come by then is removed")
    ] = 3_600.0
    result_ttl_seconds: Annotated[Seconds, Meta(description="how long a job's result is kept")] = 3_600.0
    completed_keep: Annotated[Count, Meta(description="completed jobs kept in a queue, by number")] = 1_000
    batch_keep_seconds: Annotated[Seconds, Meta(description="finished batches and chains kept, by age")] = 604_800.0
    completed_keep_seconds: Annotated[Seconds, Meta(description="completed jobs kept in a queue, by age")] = 86_400.0
    dead_keep: Annotated[Count, Meta(description="dead letters kept in a queue, by number")] = 100_000
    dead_keep_seconds: Annotated[Seconds, Meta(description="dead letters kept in a queue, by age")] = 7_776_000.0
    cancelled_keep: Annotated[Count, Meta(description="cancelled and expired jobs kept in a queue, by number")] = 1_000
    cancelled_keep_seconds: Annotated[Seconds, Meta(description="cancelled and expired jobs kept, by age")] = 86_400.0
    log_lines: Annotated[Count, Meta(description="lines of ctx.log kept with each job; 0 keeps none")] = 1_000
    log_bytes: Annotated[Positive, Meta(description="and their size; the oldest lines are dropped")] = 262_144
    capture_logging: Annotated[
        bool, Meta(description="keep what a handler logs through `logging` with its job too")
    ] = False
    imports: Annotated[tuple[str, ...], Meta(description="modules that define the job classes")] = ()
    middleware: Annotated[
        tuple[str, ...],
        Meta(description="`module:name` of middlewares, or of what makes them, for managers that are given none"),
    ] = ()
    queue_age_objective_seconds: Annotated[
        PositiveSeconds, Meta(description="alerts fire when a ready job waits longer than this")
    ] = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSet:
    """Queues that have processes of their own within one ``rf-jobs worker``. What is None is as in ``[jobs.worker]``."""

    name: str
    queues: Queues
    workers: Positive | None = None
    max_concurrent_jobs: Positive | None = None
    processes: Positive | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """One ``rf-jobs worker``."""

    workers: Annotated[Positive, Meta(description="times max_concurrent_jobs: jobs that one process runs at once")] = 1
    queues: Annotated[
        Queues, Meta(description="names in strict order, or name = weight; empty is the default queue alone")
    ] = ()
    max_concurrent_jobs: Annotated[Positive, Meta(description="jobs at once of each of the workers")] = 10
    processes: Annotated[Positive, Meta(description="supervised child processes")] = 1
    timeout_seconds: Annotated[
        PositiveSeconds | None, Meta(description="instead of jobs.timeout_seconds, for this worker's jobs")
    ] = None
    sleep_seconds: Annotated[PositiveSeconds, Meta(description="the safety-net poll of an idle worker")] = 5.0
    shutdown_timeout_seconds: Annotated[Seconds, Meta(description="how long a stop waits for running jobs")] = 25.0
    lease_seconds: Annotated[
        Annotated[float, Meta(ge=1, le=3600)],
        Meta(description="after this long without a sign of life a job is reclaimed"),
    ] = 15.0
    ageing_seconds: Annotated[
        Seconds, Meta(description="a ready job that waits so long goes up a priority; 0: priorities are strict")
    ] = 0.0
    max_crashes: Annotated[Positive, Meta(description="a job that killed its worker so often is dead-lettered")] = 3
    park_ttl_seconds: Annotated[Seconds, Meta(description="how long a job waits for a worker that knows it")] = 3_600.0
    max_prefetch: Annotated[Count, Meta(description="the most jobs a process buffers")] = 1_000
    sets: Annotated[
        tuple[WorkerSet, ...],
        Meta(
            description="queues with processes of their own; what a set leaves out is as here, and queues are theirs alone"
        ),
    ] = ()
    max_memory_mb: Annotated[Positive | None, Meta(description="a child above it is replaced")] = None
    max_jobs: Annotated[Positive | None, Meta(description="a child is replaced after so many jobs")] = None
    max_age_seconds: Annotated[
        PositiveSeconds | None, Meta(description="a child is replaced at this age, or up to a fifth sooner")
    ] = None
    grace_seconds: Annotated[Seconds, Meta(description="from a timeout to the hard kill")] = 10.0
    http_host: Annotated[str, Meta(min_length=1, description="where the worker serves metrics and probes")] = (
        "127.0.0.1"
    )
    http_port: Annotated[
        Port | None, Meta(description="one port for all processes; 0 takes any that is free; unset serves nothing")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSettings:
    """Recurring jobs: ``rf-jobs scheduler``, and schedulers inside of workers."""

    enabled: Annotated[bool, Meta(description="workers run a scheduler too")] = False
    timezone: Annotated[str, Meta(description="an IANA name; cron expressions are read in it")] = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """What is measured and where it goes."""

    metrics: Annotated[bool, Meta(description="keep Prometheus metrics")] = True
    tracing: Annotated[bool, Meta(description="record OpenTelemetry spans")] = True
    sample_ratio: Annotated[Annotated[float, Meta(ge=0, le=1)], Meta(description="share of new traces kept")] = 0.01
    max_spans_per_second: Annotated[Count, Meta(description="a cap of recorded spans for each process")] = 500
    trace: Annotated[
        Literal["auto", "link", "child", "new"], Meta(description="how an attempt's span refers to its dispatch")
    ] = "auto"
    span_name: Annotated[Literal["queue", "class"], Meta(description="what spans are named after")] = "queue"
    trace_redis: Annotated[bool, Meta(description="spans for Redis commands too")] = False
    otlp_endpoint: Annotated[str | None, Meta(description="http(s):// of a collector; unset exports nothing")] = None
    redact_exceptions: Annotated[bool, Meta(description="leave messages and tracebacks out of spans and logs")] = False
    log_format: Annotated[Literal["text", "json"], Meta(description="of the command line's own logs")] = "text"
    flush_seconds: Annotated[PositiveSeconds, Meta(description="how often metrics are flushed and spans are sent")] = (
        5.0
    )
    metric_namespace: Annotated[
        Annotated[str, Meta(pattern=r"^([a-zA-Z_][a-zA-Z0-9_]*)?$")], Meta(description="put before each metric's name")
    ] = ""
    max_series_per_metric: Annotated[Positive, Meta(description="further label values become `_other`")] = 1_000
    max_job_classes: Annotated[Positive, Meta(description="further job classes become `_other` in metrics")] = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ExporterSettings:
    """``rf-jobs exporter``."""

    host: Annotated[str, Meta(min_length=1, description="the address to serve on")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="0 takes any free port")] = 9440
    cache_seconds: Annotated[Seconds, Meta(description="scrapes within it share one reading")] = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SecuritySettings:
    """What is allowed that is not by default, and the keys for sealing and signing."""

    allow_evicting_server: Annotated[bool, Meta(description="work on a server that may evict jobs")] = False
    encryption_keys: Annotated[
        tuple[str, ...], Meta(description="id:base64; the first seals, all of them open", extra=SECRET)
    ] = field(default=(), repr=False)
    encryption_keys_file: Annotated[str | None, Meta(description="a file of further ones, a key on each line")] = None
    signing_keys: Annotated[
        tuple[str, ...], Meta(description="id:base64; the first signs envelopes, all of them check", extra=SECRET)
    ] = field(default=(), repr=False)
    signing_keys_file: Annotated[str | None, Meta(description="a file of further ones, a key on each line")] = None
    require_signatures: Annotated[bool, Meta(description="workers bury what is not signed, unread")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings; ``Settings()`` is the defaults."""

    jobs: JobsSettings = field(default_factory=JobsSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    exporter: ExporterSettings = field(default_factory=ExporterSettings)
    security: SecuritySettings = field(default_factory=SecuritySettings)
