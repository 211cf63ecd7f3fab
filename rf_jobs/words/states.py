"""The state machine as data: states, priorities, events and edges. The documentation's diagram is drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class State(StrEnum):
    """Where a job stands. Each job is in exactly one."""

    SCHEDULED = "scheduled"
    READY = "ready"
    BLOCKED = "blocked"
    PARKED = "parked"
    RUNNING = "running"
    COMPLETED = "completed"
    DEAD = "dead"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        """Whether the job is over, unless an operator replays it."""
        return self in FINAL


OPEN = (State.READY, State.SCHEDULED, State.BLOCKED, State.PARKED, State.RUNNING)
FINAL = (State.COMPLETED, State.DEAD, State.CANCELLED, State.EXPIRED)


class Priority(IntEnum):
    """Jobs of a higher priority are fetched first within their queue."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    CRITICAL = 3


@dataclass(frozen=True)
class Edge:
    """One way from a state to another: the verb, the ledger's event, the states, what makes it happen."""

    verb: str
    event: str
    source: State | None
    target: State | None
    because: str


EDGES: tuple[Edge, ...] = (
    Edge("enqueue", "dispatched", None, State.READY, "a client dispatches a job"),
    Edge("enqueue", "scheduled", None, State.SCHEDULED, "with a delay; also counted as dispatched"),
    Edge("enqueue", "blocked", None, State.BLOCKED, "it waits for other jobs; also counted as dispatched"),
    Edge("hold", "blocked", State.READY, State.BLOCKED, "a limit, or a pause of its class or tag, lets it not start"),
    Edge("unblock", "unblocked", State.BLOCKED, State.READY, "what it waited for has come"),
    Edge("unblock", "unblocked", State.BLOCKED, State.SCHEDULED, "likewise, and its time is still to come"),
    Edge("depend", "cancelled", State.BLOCKED, State.CANCELLED, "a job that it waits for failed"),
    Edge("depend", "dead", State.BLOCKED, State.DEAD, "likewise, with on_failure='dead'"),
    Edge(
        "restore",
        "restored",
        State.CANCELLED,
        State.BLOCKED,
        "the job that failed is replayed: it waits for that again",
    ),
    Edge("restore", "replayed", State.DEAD, State.BLOCKED, "likewise"),
    Edge("promote", "promoted", State.SCHEDULED, State.READY, "its time has come"),
    Edge("fetch", "started", State.READY, State.RUNNING, "a worker leases it"),
    Edge("complete", "completed", State.RUNNING, State.COMPLETED, "the handler returned"),
    Edge("retry", "retried", State.RUNNING, State.SCHEDULED, "the attempt failed and another is due"),
    Edge("snooze", "snoozed", State.RUNNING, State.SCHEDULED, "the handler asked to run later; not an attempt"),
    Edge("release", "released", State.RUNNING, State.READY, "the worker hands it back unrun or stops; not an attempt"),
    Edge("reclaim", "reclaimed", State.RUNNING, State.READY, "its worker died or lost the lease; counted as a crash"),
    Edge("reclaim", "dead", State.RUNNING, State.DEAD, "the last crash allowed (poison); also counted as reclaimed"),
    Edge("reclaim", "cancelled", State.RUNNING, State.CANCELLED, "it was asked to stop; also counted as reclaimed"),
    Edge("bury", "dead", State.RUNNING, State.DEAD, "no attempt is left, or it must not be tried again"),
    Edge("discard", "cancelled", State.RUNNING, State.CANCELLED, "the handler gave it up, or it was cancelled"),
    Edge("expire", "expired", State.RUNNING, State.EXPIRED, "it was fetched after its expiry"),
    Edge("park", "parked", State.RUNNING, State.PARKED, "its worker does not know its class"),
    Edge("unpark", "unparked", State.PARKED, State.READY, "a worker that knows its class came"),
    Edge("bury", "dead", State.PARKED, State.DEAD, "nobody who knows its class came in time"),
    Edge("cancel", "cancelled", State.READY, State.CANCELLED, "a client cancels it"),
    Edge("cancel", "cancelled", State.SCHEDULED, State.CANCELLED, "a client cancels it"),
    Edge("cancel", "cancelled", State.BLOCKED, State.CANCELLED, "a client cancels it"),
    Edge("cancel", "cancelled", State.PARKED, State.CANCELLED, "a client cancels it"),
    Edge("clear", "cancelled", State.READY, None, "an operator clears the queue; also counted as evicted"),
    Edge("clear", "cancelled", State.SCHEDULED, None, "an operator clears the queue; also counted as evicted"),
    Edge("clear", "cancelled", State.BLOCKED, None, "an operator clears the queue; also counted as evicted"),
    Edge("clear", "cancelled", State.PARKED, None, "an operator clears the queue; also counted as evicted"),
    Edge("move", "reprioritized", State.READY, State.READY, "an operator gives it another priority"),
    Edge("move", "rescheduled", State.SCHEDULED, State.READY, "an operator lets it run now"),
    Edge("move", "rescheduled", State.READY, State.SCHEDULED, "an operator puts it off"),
    Edge("revive", "replayed", State.DEAD, State.READY, "an operator replays a dead letter"),
    Edge("forget", "discarded", State.DEAD, None, "an operator forgets a dead letter"),
    Edge("collect", "evicted", State.COMPLETED, None, "retention: too many, or too old"),
    Edge("collect", "evicted", State.DEAD, None, "retention: too many, or too old"),
    Edge("collect", "evicted", State.CANCELLED, None, "retention: too many, or too old"),
    Edge("collect", "evicted", State.EXPIRED, None, "retention: too many, or too old"),
)

# An event that no edge has: a dispatch that found its job there, or another in its place.
OTHER_EVENTS = ("deduplicated",)

LEDGER_EVENTS: tuple[str, ...] = tuple(dict.fromkeys([e.event for e in EDGES] + list(OTHER_EVENTS)))
"""Every event that the ledger counts, in the order of a job's life."""


def mermaid() -> str:
    """The state diagram, in Mermaid's notation."""
    lines = ["stateDiagram-v2"]
    for edge in EDGES:
        source = edge.source.value if edge.source else "[*]"
        target = edge.target.value if edge.target else "[*]"
        lines.append(f"    {source} --> {target}: {edge.verb}")
    return "\n".join(lines)
