"""What only some dispatches ask for: uniqueness, parents, a dispatch limit, a place in a batch or a chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rf_jobs.model import codec, limits
from rf_jobs.model.crypto import Keyring
from rf_jobs.model.job import Job
from rf_jobs.model.jobclass import JobClass
from rf_jobs.store import options
from rf_jobs.store.options import Depends, Options, Slot, Unique
from rf_jobs.words.errors import InvalidOption
from rf_jobs.words.limits import OnConflict, OnFailure, Until, choice, positive_ms
from rf_jobs.words.timing import Duration


@dataclass(frozen=True, slots=True)
class UniqueChoice:
    """As ``Pending.unique_for`` takes it."""

    window: Duration | None
    until: Until
    on_conflict: OnConflict
    by: tuple[str, ...] = ()
    max_wait: Duration | None = None


@dataclass(slots=True)
class Extra:
    """Beside ``Choices``."""

    unique: UniqueChoice | None = None
    parents: tuple[str, ...] = ()
    on_failure: OnFailure = "cancel"
    slot: Slot | None = None
    group: str = ""
    """The batch or chain that it is a member of."""
    batch: str = ""
    """The batch that its context knows: itself the member, or its chain is."""
    chain: str = ""
    next: bool = False
    """Between its parent and those that wait for that."""
    last: bool = False
    """Behind the last step of its chain."""
    followed: bool = False
    """Whether others of its group wait for it."""
    conversation: str = ""
    schedule: str = ""
    tick: int = 0
    """The tick of that schedule (ms)."""


def checked_unique(window: Duration | None, until: Until, on_conflict: OnConflict, max_wait: Duration | None) -> None:
    """Raise ``InvalidOption`` for what can't be."""
    choice(until, Until, "until")
    choice(on_conflict, OnConflict, "on_conflict")
    if window is not None:
        positive_ms(window, "unique_for")
    elif until == "window" or on_conflict == "debounce":
        raise InvalidOption("unique_for is None; give a window, or until='started' or until='done'")
    if on_conflict == "debounce" and until == "done":
        raise InvalidOption("until is 'done', and a debounced job that runs can't be put off: leave until out")
    if max_wait is not None:
        positive_ms(max_wait, "max_wait")
        if on_conflict != "debounce":
            raise InvalidOption(f"max_wait is {max_wait!r}, which only on_conflict='debounce' has")


def options_of(entry: JobClass, job: Any, payload: bytes, extra: Extra | None, keyring: Keyring) -> bytes:
    """What the store is asked beyond a place in a queue, as it takes it; ``payload`` is the plain one."""
    asked = Options(entry.name, limits.links_of(entry, job) if entry.asks else "")
    unique = extra.unique if extra is not None and extra.unique is not None else _of_class(entry)
    if unique is not None:
        window = 0 if unique.window is None else positive_ms(unique.window, "unique_for")
        debounced = unique.on_conflict == "debounce"
        asked.unique = Unique(
            _digest(entry, job, payload, unique, keyring),
            "start" if debounced or unique.until == "started" else unique.until,
            window,
            unique.on_conflict,
            0 if unique.max_wait is None else positive_ms(unique.max_wait, "max_wait"),
        )
    if extra is not None:
        asked.slot = extra.slot
        asked.batch = extra.group
        asked.between, asked.behind, asked.awaited = extra.next, extra.last, extra.followed
        if extra.parents:
            asked.depends = Depends(list(extra.parents), extra.on_failure)
    return options.encode(asked)


def digest_for(job: Job, extra: Extra | None, keyring: Keyring) -> str:
    """The unique lock that a dispatch of this job would ask for. Raises ``InvalidOption`` where it would ask for none."""
    entry = job.__job_class__
    unique = extra.unique if extra is not None and extra.unique is not None else _of_class(entry)
    if unique is None:
        raise InvalidOption(f"{entry.name} is not unique; give unique_for, in its class or in the dispatch")
    payload = codec.encode_payload(job, entry)
    return _digest(entry, job, payload, unique, keyring)


def _digest(entry: JobClass, job: Any, payload: bytes, unique: UniqueChoice, keyring: Keyring) -> str:
    digest = limits.unique_digest(entry, job, payload, unique.by or entry.options.unique_by)
    # Whoever reads the server could try out what an encrypted field holds.
    return digest if entry.sealing is None else keyring.blur(digest)


def _of_class(entry: JobClass) -> UniqueChoice | None:
    o = entry.options
    return None if o.unique_for is None else UniqueChoice(o.unique_for, o.unique_until, o.on_conflict, o.unique_by)
