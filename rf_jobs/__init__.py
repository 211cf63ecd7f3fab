"""rf-jobs: background jobs for Python on Redis that you can see through. All public names; the everyday ones for a star
import stand in ``rf_jobs.prelude``."""

from rf_jobs.client.consumer import LeasedJob
from rf_jobs.client.handle import JobHandle
from rf_jobs.client.limits import LimitInfo, Limits
from rf_jobs.client.manager import QueueManager
from rf_jobs.client.payloads import FilePayloads, ObjectPayloads, PayloadStore
from rf_jobs.client.pending import Pending
from rf_jobs.client.queue import Queue, configure
from rf_jobs.client.recurring import Schedule
from rf_jobs.client.schedules import Schedules
from rf_jobs.client.workflow.groups import Batch, Chain
from rf_jobs.client.workflow.handle import BatchHandle, ChainHandle
from rf_jobs.client.workflow.records import BatchProgress, BatchRecord
from rf_jobs.core.cancellations import Cancellation
from rf_jobs.core.explain import Explanation, Reason
from rf_jobs.core.inspector import Filters
from rf_jobs.core.joblog import LogLine
from rf_jobs.core.records import AttemptError, JobRecord, Moment, Progress, QueueInfo, WorkerInfo
from rf_jobs.core.schedules import ScheduleInfo, ScheduleState
from rf_jobs.core.searching import SearchResult
from rf_jobs.core.updates import JobUpdate, StateChanged
from rf_jobs.model import events
from rf_jobs.model.context import JobContext
from rf_jobs.model.envelope import Envelope, Headers
from rf_jobs.model.events import Event, EventBus
from rf_jobs.model.iterable import IterableJob
from rf_jobs.model.job import Job
from rf_jobs.model.middleware import Handle, Middleware
from rf_jobs.model.sealing import Encrypted
from rf_jobs.words.backoff import Exponential, Fixed, Linear
from rf_jobs.words.config_settings import (
    JobsSettings,
    SecuritySettings,
    Settings,
    TelemetrySettings,
    WorkerSet,
    WorkerSettings,
)
from rf_jobs.words.control import Discard, Fail, Retry, Snooze
from rf_jobs.words.errors import (
    BackendError,
    BatchClosed,
    ConfigError,
    CustomError,
    DuplicateJob,
    ExecutionFailed,
    ForgedEnvelope,
    InvalidOption,
    JobError,
    JobNotFound,
    JobTimeout,
    MissingKey,
    MissingPayloadStore,
    PayloadLost,
    PayloadTooLarge,
    QueueError,
    RateLimited,
    ResultExpired,
    RfJobsError,
    SchedulerError,
    SerializationError,
    StaleLease,
    TamperedPayload,
    UnknownJobClass,
    UnknownQueue,
    UnknownSchedule,
    WorkerError,
)
from rf_jobs.words.limits import Breaker, Rate
from rf_jobs.words.recurrence import Misfire
from rf_jobs.words.states import Priority, State
from rf_jobs.worker.commission import Commission
from rf_jobs.worker.config import WorkerConfig
from rf_jobs.worker.pool import WorkerPool
from rf_jobs.worker.relay import Relay
from rf_jobs.worker.scheduler import Scheduler
from rf_jobs.worker.supervisor import Supervisor

__all__ = [
    "AttemptError",
    "BackendError",
    "Batch",
    "BatchClosed",
    "BatchHandle",
    "BatchProgress",
    "BatchRecord",
    "Breaker",
    "Cancellation",
    "Chain",
    "ChainHandle",
    "Commission",
    "ConfigError",
    "CustomError",
    "Discard",
    "DuplicateJob",
    "Encrypted",
    "Envelope",
    "Event",
    "EventBus",
    "ExecutionFailed",
    "Explanation",
    "Exponential",
    "Fail",
    "FilePayloads",
    "Filters",
    "Fixed",
    "ForgedEnvelope",
    "Handle",
    "Headers",
    "InvalidOption",
    "IterableJob",
    "Job",
    "JobContext",
    "JobError",
    "JobHandle",
    "JobNotFound",
    "JobRecord",
    "JobTimeout",
    "JobUpdate",
    "JobsSettings",
    "LeasedJob",
    "LimitInfo",
    "Limits",
    "Linear",
    "LogLine",
    "Middleware",
    "Misfire",
    "MissingKey",
    "MissingPayloadStore",
    "Moment",
    "ObjectPayloads",
    "PayloadLost",
    "PayloadStore",
    "PayloadTooLarge",
    "Pending",
    "Priority",
    "Progress",
    "Queue",
    "QueueError",
    "QueueInfo",
    "QueueManager",
    "Rate",
    "RateLimited",
    "Reason",
    "Relay",
    "ResultExpired",
    "Retry",
    "RfJobsError",
    "Schedule",
    "ScheduleInfo",
    "ScheduleState",
    "Scheduler",
    "SchedulerError",
    "Schedules",
    "SearchResult",
    "SecuritySettings",
    "SerializationError",
    "Settings",
    "Snooze",
    "StaleLease",
    "State",
    "StateChanged",
    "Supervisor",
    "TamperedPayload",
    "TelemetrySettings",
    "UnknownJobClass",
    "UnknownQueue",
    "UnknownSchedule",
    "WorkerConfig",
    "WorkerError",
    "WorkerInfo",
    "WorkerPool",
    "WorkerSet",
    "WorkerSettings",
    "configure",
    "events",
]  # fmt: skip
