"""Exit codes, and which error ends with which. docs/cli.md shows this table."""

from __future__ import annotations

from enum import IntEnum

from rf_jobs.words.errors import (
    BackendError,
    ConfigError,
    DuplicateJob,
    InvalidOption,
    JobNotFound,
    PayloadTooLarge,
    RfJobsError,
    SchedulerError,
    SerializationError,
    UnknownJobClass,
    UnknownQueue,
    UnknownSchedule,
)


class Exit(IntEnum):
    """What the exit code says."""

    OK = 0
    NO = 1
    """The answer is no: a check failed, a job did not complete, there was nothing to do it to."""
    USAGE = 2
    """The arguments, the configuration or the payload are wrong; nothing was done."""
    SERVER = 3
    """The Redis server is unreachable, refuses, or is not fit to hold jobs."""
    NOT_FOUND = 4
    """No such job, queue or schedule."""
    TIMEOUT = 5
    """What was waited for did not happen in time; it may still happen."""
    BUG = 70
    """An error of rf-jobs itself, or of code that it was told to import; the traceback is shown."""
    INTERRUPTED = 130
    """Ctrl-C."""
    PIPE_CLOSED = 141
    """Whoever read the output went away."""


_CODES: tuple[tuple[type[Exception], Exit], ...] = (
    (BackendError, Exit.SERVER),
    (JobNotFound, Exit.NOT_FOUND),
    (UnknownQueue, Exit.NOT_FOUND),
    (UnknownSchedule, Exit.NOT_FOUND),
    (ConfigError, Exit.USAGE),
    (DuplicateJob, Exit.USAGE),
    (InvalidOption, Exit.USAGE),
    (PayloadTooLarge, Exit.USAGE),
    (SchedulerError, Exit.USAGE),
    (SerializationError, Exit.USAGE),
    (UnknownJobClass, Exit.USAGE),
    (RfJobsError, Exit.NO),
    (TimeoutError, Exit.TIMEOUT),
)


def exit_code(error: Exception) -> Exit:
    """The code for an error that ends a command."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.BUG)
