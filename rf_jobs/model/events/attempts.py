"""What becomes of attempts."""

from __future__ import annotations

from rf_jobs.model.events.base import JobEvent


class AttemptEvent(JobEvent, gc=False):
    """Something happened to an attempt. Times are seconds."""

    attempt: int
    worker: str
    wait: float
    """From eligible (dispatched, or due) to started."""


class JobStarted(AttemptEvent, gc=False):
    """A handler is about to run."""


class AttemptEnded(AttemptEvent, gc=False):
    """An attempt is over."""

    duration: float
    """How long the handler ran."""
    total: float
    """From first eligible to now, retries included."""
    trace: str = ""
    """traceparent of the attempt's span where one was recorded, for exemplars."""


class JobCompleted(AttemptEnded, gc=False):
    """The handler returned."""


class FailedAttempt(AttemptEnded, gc=False):
    """The attempt failed, or ended early with a reason."""

    reason: str = ""
    """Of a retry or a death: exception, timeout, decode, unknown_class, forged (its envelope), tampered (what is sealed in it), payload_lost, unknown_key and
    no_payload_store (nobody came who has it), lost (its last crash), backoff (its policy failed), dependency, or
    requested (``Retry``, ``Fail``); a hand-written consumer says what it likes. Of other ends: cancelled, shutdown, handed
    back, released, or the text that goes with it, such as what a ``Discard`` said, why it was parked, or how its process
    died."""
    error_type: str = ""
    message: str = ""
    traceback: str = ""


class JobRetried(FailedAttempt, gc=False):
    """It failed and will be tried again."""

    delay: float = 0.0


class JobDied(FailedAttempt, gc=False):
    """Buried among the dead letters."""


class JobDiscarded(FailedAttempt, gc=False):
    """The handler gave it up, or it was cancelled while it ran."""


class JobExpired(FailedAttempt, gc=False):
    """It was fetched after its expiry, and did not run."""


class JobSnoozed(FailedAttempt, gc=False):
    """The handler asked to run later; not an attempt."""

    delay: float = 0.0


class JobReleased(FailedAttempt, gc=False):
    """Handed back unrun, or stopped by a shutdown; not an attempt."""


class JobParked(FailedAttempt, gc=False):
    """This worker does not know its class."""


class JobCrashed(FailedAttempt, gc=False):
    """The process that ran it died under it: back to ready, or, after too many crashes, dead as poison."""


class AttemptLost(AttemptEnded, gc=False):
    """The attempt ended after its lease was lost: its outcome was refused, another worker has or had the job."""


class JobReclaimed(JobEvent, gc=False):
    """Taken back from a worker that fell silent."""

    crashes: int
    worker: str
    state: str
    """What it is now: ``ready``; ``dead``, buried as poison; or ``cancelled``, since it had been asked to stop."""
    token: str = ""
    """The lost lease's."""
    attempt: int = 0
    wait: float = 0.0
    """What the lost attempt had waited (seconds)."""
