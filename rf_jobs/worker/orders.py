"""What a supervisor tells its children, a JSON line with each heartbeat; and how a child announces what its siblings' deaths
did. The supervisor forks, so it has no telemetry: it settles in the store, and a living child says so on its bus."""

from __future__ import annotations

from dataclasses import dataclass, field

from rf_jobs.client.manager import QueueManager
from rf_jobs.model.events import JobReclaimed
from rf_jobs.store.shapes import Beaten
from rf_jobs.words.errors import RfJobsError
from rf_jobs.words.states import State


@dataclass(frozen=True)
class Crash:
    """A job whose worker process died over it: settled in the store, not yet announced. ``token`` is the lost lease's."""

    queue: str
    id: str
    token: str


@dataclass(frozen=True)
class Order:
    """One line."""

    beaten: Beaten
    crashes: list[Crash]
    operations: list[tuple[str, float, str]] = field(default_factory=list)
    """The supervisor's own round trips to the server since the last line: operation, seconds, error."""


def _fate(state: str) -> str:
    """What the crash made of it; it may have moved on since."""
    return state if state in (State.DEAD, State.CANCELLED) else State.READY


async def announce(manager: QueueManager, crashes: list[Crash]) -> None:
    """Emit what a reclaim would have; where the store can't say more by now, with what is known."""
    for crash in crashes:
        worker = crash.token.partition(".")[0]
        try:
            record = await manager.inspector.job(crash.id)
        except RfJobsError:
            event = JobReclaimed(crash.id, crash.queue, "", 0, worker, State.READY, crash.token)
        else:
            event = JobReclaimed(
                crash.id, crash.queue, record.job_class, record.crashes, worker, _fate(record.state), crash.token,
                record.attempt,
            )  # fmt: skip
        manager.bus.emit(event)
