"""Every error that rf-jobs raises on purpose.

The tree::

    RfJobsError
    ├── JobError                 what went wrong with one job
    │   ├── ExecutionFailed      the handler raised
    │   ├── JobTimeout           the handler ran longer than its timeout (.after, seconds)
    │   ├── SerializationError   a payload, envelope or result that cannot be encoded or decoded
    │   │   ├── ForgedEnvelope
    │   │   ├── PayloadLost
    │   │   └── TamperedPayload
    │   ├── MissingKey           a key is needed that is not configured here
    │   ├── MissingPayloadStore  a payload is offloaded, and no payload store is configured here
    │   ├── ResultExpired        the result was kept for its ttl, and is gone
    │   ├── BackendError         the server refused, is unreachable, or is unsafe to use
    │   └── CustomError          for an application's own subclasses
    ├── QueueError               a request to a queue that cannot be honoured
    │   ├── BatchClosed
    │   ├── DuplicateJob
    │   ├── InvalidOption
    │   ├── JobNotFound
    │   ├── PayloadTooLarge
    │   ├── RateLimited
    │   ├── StaleLease
    │   ├── UnknownJobClass
    │   └── UnknownQueue
    ├── WorkerError
    ├── SchedulerError
    │   └── UnknownSchedule
    └── ConfigError

Each message says what was wrong, with which value, and what to do next.
"""

from __future__ import annotations


class RfJobsError(Exception):
    """The root of the tree; catch it to catch all of ours."""


class JobError(RfJobsError):
    """Something went wrong with one job."""


class ExecutionFailed(JobError):
    """The handler raised.

    ``error_type``, ``message`` and ``traceback`` are text as the worker saw them: an exception is never rebuilt from
    the store, since a payload could then choose the class.
    """

    def __init__(self, message: str, *, error_type: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.error_type = error_type
        self.traceback = traceback


class JobTimeout(JobError):
    """The handler ran longer than its timeout; ``after`` is that timeout in seconds."""

    def __init__(self, after: float, message: str | None = None) -> None:
        super().__init__(message or f"the job ran longer than its timeout of {after:g} s")
        self.after = after


class SerializationError(JobError):
    """A payload, envelope or result that cannot be encoded or decoded."""


class ForgedEnvelope(SerializationError):
    """An envelope that is not signed, or not by whom it says; nothing in it was read."""


class PayloadLost(SerializationError):
    """An offloaded payload that is not in the payload store, or is not what was put there."""


class TamperedPayload(SerializationError):
    """What was sealed is not what was sealed: somebody changed it, or moved it here from another job."""


class MissingKey(JobError):
    """A key is needed, to seal or to open or to check a signature, that is not configured here."""


class MissingPayloadStore(JobError):
    """The payload is offloaded, and no payload store is configured here."""


class ResultExpired(JobError):
    """The job completed and had a result, which was kept for its ``result_ttl`` and is gone."""


class BackendError(JobError):
    """The server refused the operation, cannot be reached, or is not safe to hold jobs."""


class CustomError(JobError):
    """A base for an application's own job errors."""


class QueueError(RfJobsError):
    """A request to a queue that cannot be honoured."""


class BatchClosed(QueueError):
    """The batch is over, was cancelled, or is not known: nothing can be added to it."""


class DuplicateJob(QueueError):
    """A job with this id was dispatched before."""


class InvalidOption(QueueError):
    """An option of a job class, a dispatch or a call has a value that cannot be used."""


class JobNotFound(QueueError):
    """No job with this id is known (never dispatched, or removed by retention)."""


class PayloadTooLarge(QueueError):
    """The encoded job is larger than ``max_payload_bytes``."""


class RateLimited(QueueError):
    """The dispatch was over its rate limit."""


class StaleLease(QueueError):
    """The lease under which this call was made is no longer held: another worker may run the job by now."""


class UnknownJobClass(QueueError):
    """No registered job class has this name."""


class UnknownQueue(QueueError):
    """No queue of this name has ever held a job."""


class WorkerError(RfJobsError):
    """The worker runtime cannot start or go on."""


class SchedulerError(RfJobsError):
    """A schedule that cannot be kept."""


class UnknownSchedule(SchedulerError):
    """There is no schedule of this name."""


class ConfigError(RfJobsError):
    """A setting that is unknown, malformed or impossible."""
