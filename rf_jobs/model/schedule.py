"""A schedule: when it runs and what it then dispatches. As JSON it lies in the store, so that any scheduler can run it."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, TypedDict

import msgspec

from rf_jobs.model.envelope import Seal
from rf_jobs.words import options as checks
from rf_jobs.words.errors import SchedulerError
from rf_jobs.words.ids import queue_name, schedule_name
from rf_jobs.words.recurrence import Every, Misfire, Timetable, timetable
from rf_jobs.words.states import Priority
from rf_jobs.words.timing import Duration, millis, moment_ms

GRACE_SECONDS = 60.0
"""How late a tick may be and still be on time, unless its schedule says otherwise."""


class ScheduleOptions(TypedDict, total=False):
    """What may be said of a schedule beyond when and what, for type checkers. Durations are seconds or timedeltas."""

    timezone: str
    """The IANA zone that a cron expression is read in; else the scheduler's, else the one of ``[jobs.scheduler]``."""
    jitter: Duration
    """Each run is later by up to so much: the same for all schedulers, another for each tick."""
    misfire: Misfire | str
    """What becomes of ticks that are more than ``grace`` late: skip, once (the default) or all."""
    grace: Duration
    """60 seconds unless given."""
    start: datetime
    """No run before it; an interval is counted from it."""
    until: datetime
    """No run after it."""
    queue: str
    priority: Priority | str | int
    max_attempts: int
    expires_in: Duration
    """A job that has not started by then, from its dispatch, ends as ``expired``."""
    tags: tuple[str, ...] | list[str]


class Definition(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """What is asked for, as it lies in the store. Times and durations are milliseconds."""

    job: str
    """The class's stable name."""
    cron: str = ""
    every: int = 0
    tz: str = "UTC"
    start: int = 0
    until: int = 0
    jitter: int = 0
    misfire: str = Misfire.ONCE
    grace: int = round(GRACE_SECONDS * 1000)
    args: msgspec.Raw = msgspec.Raw(b"{}")
    """The payload: a JSON object of the class's fields."""
    ver: int = 1
    """The version of the class that wrote it."""
    enc: Seal | None = None
    """What of it is sealed, if anything is."""
    queue: str = ""
    """Empty: as the class says when it is dispatched; so are the others where they are None."""
    home: str = ""
    """Where the class sends it, for a scheduler that does not know the class."""
    pri: int | None = None
    max: int | None = None
    exp: int | None = None
    tags: list[str] | None = None

    def timetable(self, name: str) -> Timetable:
        """Its ticks. Raises ``SchedulerError``, where it lay in the store damaged or from a place with other time zones."""
        return timetable(
            name, expression=self.cron, timezone=self.tz, interval_ms=self.every, start_ms=self.start, until_ms=self.until,
            jitter_ms=self.jitter,
        )  # fmt: skip

    @property
    def when(self) -> str:
        """When it runs, for people."""
        return f"{self.cron} ({self.tz})" if self.cron else f"every {self.every / 1000:g} s"


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Definition)


def encode(definition: Definition) -> bytes:
    """As it lies in the store."""
    return _encoder.encode(definition)


def decode(data: bytes) -> Definition:
    """From the store. Raises ``SchedulerError`` for what is damaged, or of a newer version."""
    try:
        found = _decoder.decode(data)
        Misfire.of(found.misfire)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SchedulerError(f"the definition in the store is damaged: {error}; put the schedule again") from None
    return found


def revision(definition: Definition, sealed: bool = False) -> str:
    """What tells one definition from another. Of a sealed payload not the text, which is another each time."""
    known = msgspec.structs.replace(definition, args=msgspec.Raw(b"{}"), enc=None) if sealed else definition
    return _digest(encode(known))


def timing(definition: Definition) -> str:
    """What tells apart when definitions run."""
    facts = [definition.cron, definition.every, definition.tz, definition.start, definition.until, definition.jitter]
    return _digest(_encoder.encode(facts))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def named(name: object) -> str:
    """``name`` as a schedule's. Raises ``InvalidOption``."""
    return schedule_name(name)


def settings_of(
    name: str, cron: str | None, every: Duration | None, timezone: str, options: ScheduleOptions
) -> dict[str, Any]:
    """All but the payload of a definition, checked. Raises ``SchedulerError`` or ``InvalidOption``."""
    known = ScheduleOptions.__annotations__
    for key in options:
        if key not in known:
            raise SchedulerError(f"schedule {name!r} has the unknown option {key!r}; known are {', '.join(known)}")
    if (cron is None) == (every is None):
        raise SchedulerError(f"schedule {name!r} needs either a cron expression or an interval (every), and not both")
    found: dict[str, Any] = {"start": _moment(options, "start"), "until": _moment(options, "until")}
    if every is not None:
        found["every"] = Every.of(every).interval_ms
    else:
        found |= {"cron": cron, "tz": options.get("timezone", timezone)}
    if found["until"] and found["until"] < found["start"]:
        raise SchedulerError(f"schedule {name!r} ends (until) before it starts (start)")
    found["jitter"] = millis(options.get("jitter", 0), "jitter")
    found["misfire"] = Misfire.of(options.get("misfire", Misfire.ONCE)).value
    found["grace"] = millis(options.get("grace", GRACE_SECONDS), "grace")
    if "queue" in options:
        found["queue"] = queue_name(options["queue"])
    if "priority" in options:
        found["pri"] = int(checks.priority(options["priority"]))
    if "max_attempts" in options:
        found["max"] = checks.attempts(options["max_attempts"])
    if "expires_in" in options:
        found["exp"] = millis(options["expires_in"], "expires_in")
        if not found["exp"]:
            raise SchedulerError(
                f"expires_in of schedule {name!r} is {options['expires_in']!r}; give more than 0 seconds"
            )
    if "tags" in options:
        found["tags"] = list(checks.tags(options["tags"]))
    return found


def _moment(options: ScheduleOptions, which: str) -> int:
    value = options.get(which)
    if value is None:
        return 0
    if not isinstance(value, datetime):
        raise SchedulerError(f"{which} is {value!r}; give an aware datetime")
    return max(1, moment_ms(value, which))
