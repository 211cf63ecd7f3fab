"""rf-jobs: background jobs for Python on Redis that you can see through."""

from rf_jobs.client.manager import QueueManager
from rf_jobs.client.pending import Pending
from rf_jobs.client.queue import Queue, configure
from rf_jobs.core.inspector import Filters
from rf_jobs.core.records import JobRecord, Progress
from rf_jobs.model.context import JobContext
from rf_jobs.model.job import Job
from rf_jobs.model.middleware import Middleware
from rf_jobs.words.backoff import Exponential, Fixed, Linear
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.control import Discard, Fail, Retry, Snooze
from rf_jobs.words.states import Priority, State
from rf_jobs.worker.config import WorkerConfig
from rf_jobs.worker.pool import WorkerPool

__all__ = [
    "Discard", "Exponential", "Fail", "Filters", "Fixed", "Job", "JobContext", "JobRecord", "Linear", "Middleware",
    "Pending", "Priority", "Progress", "Queue", "QueueManager", "Retry", "Settings", "Snooze", "State", "WorkerConfig",
    "WorkerPool", "configure",
]  # fmt: skip
