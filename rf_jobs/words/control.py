"""What a handler raises to steer its job. None of these is an error in the code that raises it."""

from __future__ import annotations

from rf_jobs.words.timing import Duration, seconds


class Steer(Exception):  # noqa: N818 (these are verdicts, not errors)
    """The root of what steers a job from inside its handler."""


class Retry(Steer):
    """Try again, after ``delay`` (default: what the job's backoff says). Uses up an attempt."""

    def __init__(self, reason: str = "", *, delay: Duration | None = None) -> None:
        super().__init__(reason or "the handler asked for a retry")
        self.delay = None if delay is None else seconds(delay, "delay of Retry")


class Snooze(Steer):
    """Run again after ``delay``; not an attempt."""

    def __init__(self, delay: Duration, reason: str = "") -> None:
        super().__init__(reason or "the handler asked to run later")
        self.delay = seconds(delay, "delay of Snooze")


class Discard(Steer):
    """Give the job up, on purpose: it ends as ``cancelled`` with this reason and is not a dead letter."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "the handler gave the job up")


class Fail(Steer):
    """Fail for good: straight to the dead letters, whatever attempts are left."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "the handler failed the job for good")
