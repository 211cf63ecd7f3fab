"""The roots of all events, and the one that every round trip tells."""

from __future__ import annotations

import msgspec


class Event(msgspec.Struct, gc=False):
    """The root of all events."""


class JobEvent(Event, gc=False):
    """Something happened to one job."""

    job_id: str
    queue: str
    job_class: str
    """The class's stable name; empty where the envelope could not be read."""


class OperationDone(Event, gc=False):
    """A round trip to the server ended, well or not."""

    op: str
    seconds: float
    error: str = ""
