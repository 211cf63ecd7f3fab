"""What nearly every program needs: ``from rf_jobs.prelude import *``."""

from rf_jobs.client.manager import QueueManager
from rf_jobs.client.queue import Queue, configure
from rf_jobs.client.workflow.groups import Batch, Chain
from rf_jobs.model.context import JobContext
from rf_jobs.model.job import Job
from rf_jobs.model.middleware import Middleware
from rf_jobs.model.sealing import Encrypted
from rf_jobs.words.backoff import Exponential, Fixed, Linear
from rf_jobs.words.control import Discard, Fail, Retry, Snooze
from rf_jobs.words.errors import ExecutionFailed, JobError, JobTimeout, RfJobsError
from rf_jobs.words.limits import Breaker, Rate
from rf_jobs.words.states import Priority
from rf_jobs.worker.config import WorkerConfig
from rf_jobs.worker.pool import WorkerPool
from rf_jobs.worker.scheduler import Scheduler

__all__ = [
    "Batch", "Breaker", "Chain", "Discard", "Encrypted", "ExecutionFailed", "Exponential", "Fail", "Fixed",
    "Job", "JobContext", "JobError", "JobTimeout", "Linear", "Middleware", "Priority", "Queue", "QueueManager",
    "Rate", "Retry", "RfJobsError", "Scheduler", "Snooze", "WorkerConfig", "WorkerPool", "configure",
]  # fmt: skip
