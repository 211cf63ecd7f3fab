"""What goes into the store and what comes out of it, as plain values, and how the larger replies are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

import msgspec

from rf_jobs.store.calls import Arg, pairs, text, texts
from rf_jobs.words.states import State

BAND = 1 << 51
SCORE_TICKS = 512


def score_ms(score: str | bytes | float) -> int:
    """The time (ms) that a ready score embeds."""
    return int(float(score)) % BAND // SCORE_TICKS


@dataclass(frozen=True)
class Retention:
    """How many finished jobs a queue keeps, and for how long (ms), by state."""

    completed: tuple[int, int] = (1000, 86_400_000)
    dead: tuple[int, int] = (100_000, 7_776_000_000)
    cancelled: tuple[int, int] = (1000, 86_400_000)
    expired: tuple[int, int] = (1000, 86_400_000)

    def args(self) -> list[Arg]:
        """As the scripts take them."""
        return [*self.completed, *self.dead, *self.cancelled, *self.expired]


class Greeting(NamedTuple):
    """What a store says of itself at first contact."""

    schema: int
    instance: str
    parts: tuple[tuple[int, int], ...]
    """Of each shard: into how many its namespace was divided, and which of them it is."""


class Draft(msgspec.Struct, frozen=True, gc=False):
    """A job on its way into the store."""

    id: str
    queue: str
    priority: int
    when: str
    """'' now, '+<ms>' from now, '<ms>' at that time; '!<ms>' behind it: it expires unless it has started by then."""
    data: bytes
    options: bytes = b""
    """What only some ask for, as JSON; see ``options_of``."""


class Leased(msgspec.Struct, frozen=True, gc=False):
    """A job as a fetch hands it over."""

    id: str
    data: bytes
    queue: str
    attempt: int
    crashes: int
    epoch: int
    ready_ms: int
    first_ms: int
    previous: str
    token: str
    again: bool = False
    """Whether it was leased before: retried, snoozed, handed back or taken back."""
    expires_ms: int = 0
    """When it expires unless it has started (server's clock), 0: never."""


@dataclass(slots=True)
class Fetched:
    """What a fetch found."""

    now_ms: int
    next_due_ms: int
    promoted: list[tuple[str, int, int]]
    """(queue, how many, lag in ms of the oldest)"""
    jobs: list[Leased]
    nonce: int = 0
    """Of the fetch; with the worker's id it is the token of these leases."""


class Ending(msgspec.Struct, frozen=True, gc=False):
    """How an attempt ends: the verb of an edge, and what it takes."""

    verb: str
    queue: str
    id: str
    token: str
    number: int = 0
    """retry, snooze: delay in ms; crash: max crashes; complete: the result's time to live in ms."""
    reason: str = ""
    data: bytes = b""
    """The error's JSON; complete: the result's."""
    span: str = ""


class Report(msgspec.Struct, frozen=True, gc=False):
    """What a running job says of itself."""

    id: str
    token: str
    queue: str
    progress: bytes = b""
    """JSON; empty where there is no news."""
    first: int = 0
    """The number of the first of ``lines``, counted from 1 in each attempt."""
    lines: tuple[bytes, ...] = ()
    """JSON of each line of its log."""
    told: bool = False
    """Whether it was told to stop."""


class Verdict(IntEnum):
    """What the store did with an ending."""

    REFUSED = 0
    """The lease is not held (any more): nothing."""
    DONE = 1
    DONE_BEFORE = 2
    """The same call was sent again."""
    CANCELLED = 3
    """It had been asked to stop, so it was cancelled instead of what the ending says."""
    BURIED = 4
    """It was its last crash."""


@dataclass(frozen=True)
class Beaten:
    """What a heartbeat brought."""

    now_ms: int
    instance: str
    lost: list[str]
    stop: list[str]


@dataclass(frozen=True)
class Reclaimed:
    """A job taken back."""

    queue: str
    id: str
    crashes: int
    state: State
    """What it is now: ready, dead or cancelled."""
    token: str
    attempt: int
    waited_ms: int
    """From ready to the lost lease."""
    data: bytes
    """Its envelope."""


@dataclass
class QueueSurvey:
    """One queue at one instant. Times are milliseconds since 1970, None where there is nothing."""

    name: str
    cards: dict[str, int]
    oldest_ready_ms: int | None
    oldest_running_ms: int | None
    next_due_ms: int | None
    oldest_dead_ms: int | None
    paused: bool
    ledger: dict[str, int] = field(default_factory=dict)


@dataclass
class Survey:
    """All queues at one instant."""

    now_ms: int
    instance: str
    queues: list[QueueSurvey]


def read_fetched(reply: Any, worker: str, nonce: int) -> Fetched:
    """A fetch's reply; see fetch.lua for its form."""
    now, due, promoted, flat = reply[:4]
    token = f"{worker}.{nonce}"
    jobs = []
    for i in range(0, len(flat), 3):
        job_id, data, facts = flat[i].decode(), flat[i + 1], flat[i + 2].decode().split(" ")
        ready_ms = int(float(facts[1])) % BAND // SCORE_TICKS  # score_ms, without a call for each job
        if len(facts) == 2:
            job = Leased(job_id, data, facts[0], 1, 0, now, ready_ms, ready_ms, "", token)
        elif len(facts) == 3:
            job = Leased(job_id, data, facts[0], 1, 0, now, ready_ms, ready_ms, "", token, False, int(facts[2]))
        else:
            queue, _, attempt, crashes, epoch, first, previous, expires = facts
            job = Leased(
                job_id, data, queue, int(attempt), int(crashes), int(epoch), ready_ms, score_ms(first), previous, token,
                True, int(expires or 0),
            )  # fmt: skip
        jobs.append(job)
    moved = [(text(promoted[i]), int(promoted[i + 1]), int(promoted[i + 2])) for i in range(0, len(promoted), 3)]
    return Fetched(now, due, moved, jobs, nonce)


_SURVEY_STATES = ("ready", "scheduled", "blocked", "parked", "running", "completed", "dead", "cancelled", "expired")
_SURVEY_WIDTH = 1 + len(_SURVEY_STATES) + 4 + 3


def read_survey(reply: Any) -> Survey:
    now, ledger_flat, paused_list, _, instance, flat = reply
    ledger: dict[str, dict[str, int]] = {}
    for name, value in pairs(ledger_flat).items():
        queue, _, event = name.rpartition("|")
        ledger.setdefault(queue, {})[event] = int(value)
    paused = set(texts(paused_list))
    queues = []
    for at in range(0, len(flat), _SURVEY_WIDTH):
        row = flat[at : at + _SURVEY_WIDTH]
        name = text(row[0])
        heads = [score_ms(score) for score in row[10:14] if score]
        queues.append(
            QueueSurvey(
                name=name,
                cards=dict(zip(_SURVEY_STATES, (int(n) for n in row[1:10]), strict=True)),
                oldest_ready_ms=min(heads) if heads else None,
                oldest_running_ms=int(row[14]) if row[14] else None,
                next_due_ms=int(float(row[15])) if row[15] else None,
                oldest_dead_ms=int(float(row[16])) if row[16] else None,
                paused=name in paused,
                ledger=ledger.get(name, {}),
            )
        )
    return Survey(now, text(instance), queues)
