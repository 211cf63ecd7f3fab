"""How far a request to stop a job has come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from rf_jobs.words.states import FINAL, State

REQUESTED, ACKNOWLEDGED, STOPPED, TOO_LATE = "requested", "acknowledged", "stopped", "too late"


@dataclass(frozen=True)
class Cancellation:
    """A request to stop a job, and what came of it. Times are the server's; None where it has not come so far, or where
    that was not written down."""

    stage: str
    """``requested``: nobody but the store knows. ``acknowledged``: its worker has told the handler, which goes on for now.
    ``stopped``: the job is over, as cancelled. ``too late``: it had ended otherwise first."""
    reason: str
    requested_at: datetime | None = None
    acknowledged_at: datetime | None = None
    stopped_at: datetime | None = None


def stage_of(state: str, *, acknowledged: bool) -> str:
    """The stage of a request, by the job's state."""
    if state == State.CANCELLED:
        return STOPPED
    if state in FINAL:
        return TOO_LATE
    return ACKNOWLEDGED if acknowledged else REQUESTED
