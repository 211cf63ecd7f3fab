"""What changed about a job that is watched: a pure comparison of what lies in the store with what was told before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from rf_jobs.core.cancellations import Cancellation
from rf_jobs.core.joblog import LogLine, read_lines
from rf_jobs.core.records import AttemptError, Progress, cancellation_of, moment, read_error, read_progress, whole
from rf_jobs.words.states import FINAL, State


@dataclass(frozen=True)
class StateChanged:
    """The job stands elsewhere now, or runs again. The first update of every watch, and the last."""

    state: str
    """One of ``State``."""
    attempt: int
    """How many attempts there were, the one that runs included."""
    at: datetime | None = None
    """When it started or ended; None of other states."""
    reason: str = ""

    @property
    def is_final(self) -> bool:
        """Whether the job is over."""
        return self.state in FINAL


JobUpdate: TypeAlias = StateChanged | Progress | LogLine | AttemptError | Cancellation
"""What ``watch`` tells: a change of state, how far the job is, a line of its log, a failed attempt, how far a request to stop
it has come."""


@dataclass(frozen=True)
class Look:
    """What lies in the store of a job at one moment."""

    meta: Mapping[str, str]
    progress: bytes | None = None
    errors: Sequence[bytes] | None = None
    """The last few; None where they were not looked at."""
    first: int = 1
    """The number of the first of ``lines``."""
    lines: Sequence[bytes] = field(default_factory=list)
    """Those behind ``Follower.line``."""


class Follower:
    """Remembers what was told. ``standing`` is the state of a job of which none is written down."""

    def __init__(self, standing: str) -> None:
        self._standing = standing
        self._state: tuple[str, str, str] | None = None
        self._attempt = 0
        self._progress: bytes | None = None
        self._error: bytes | None = None
        self._cancellation: Cancellation | None = None
        self.line = 0
        """The number of the last line that was told."""
        self.is_over = False
        """Whether the job was seen to be over."""

    def news(self, look: Look) -> list[JobUpdate]:
        """What is new, in an order in which it may have happened: what an attempt said comes after its start, and before
        the end."""
        meta = look.meta
        state = self._changed_state(meta)
        said = self._lines(look)
        told: list[JobUpdate] = []
        if state is not None and state.state == State.RUNNING and state.attempt != self._attempt:
            told += [line for line in said if line.attempt < state.attempt]
            said = [line for line in said if line.attempt >= state.attempt]
            told += self._errors(look)
            told.append(state)
            self._attempt, state = state.attempt, None
        told += said
        told += self._how_far(look)
        told += self._errors(look)
        told += self._request(meta)
        if state is not None:
            told.append(state)
        return told

    def _changed_state(self, meta: Mapping[str, str]) -> StateChanged | None:
        state = meta.get("state") or self._standing
        key = (state, meta.get("epoch", ""), meta.get("attempt", ""))
        if key == self._state:
            return None
        self._state = key
        self.is_over = state in FINAL
        at = (
            moment(meta.get("epoch"))
            if state == State.RUNNING
            else moment(meta.get("finished"))
            if self.is_over
            else None
        )
        waits = state in (State.READY, State.SCHEDULED)
        return StateChanged(state, whole(meta.get("attempt")), at, "" if waits else meta.get("reason", ""))

    def _lines(self, look: Look) -> list[LogLine]:
        lines = [line for line in read_lines(look.first, look.lines) if line.number > self.line]
        if lines:
            self.line = lines[-1].number
        return lines

    def _how_far(self, look: Look) -> list[JobUpdate]:
        if look.progress == self._progress:
            return []
        self._progress = look.progress
        progress = read_progress(look.progress)
        return [] if progress is None else [progress]

    def _errors(self, look: Look) -> list[JobUpdate]:
        errors = list(look.errors or ())
        new = errors
        if self._error in errors:
            new = errors[len(errors) - errors[::-1].index(self._error) :]
        if errors:
            self._error = errors[-1]
        return [read_error(line) for line in new]

    def _request(self, meta: Mapping[str, str]) -> list[JobUpdate]:
        request = cancellation_of(meta, meta.get("state") or self._standing)
        if request == self._cancellation:
            return []
        self._cancellation = request
        return [] if request is None else [request]
