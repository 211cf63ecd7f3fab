"""Ticks, schedules, schedulers."""

from __future__ import annotations

from rf_jobs.model.events.base import Event


class ScheduleEvent(Event, gc=False):
    """Something happened to a schedule."""

    schedule: str


class ScheduleTicked(ScheduleEvent, gc=False):
    """A tick's job was dispatched; ``JobDispatched`` says so too."""

    tick_ms: int
    job_id: str
    queue: str
    job_class: str
    lag: float
    """How late (seconds)."""
    traceparent: str = ""


class ScheduleTaken(ScheduleEvent, gc=False):
    """Another scheduler was quicker."""

    tick_ms: int


class ScheduleOverlapped(ScheduleEvent, gc=False):
    """Its job is unique, and an equal one was there still: nothing was dispatched."""

    tick_ms: int


class ScheduleMissed(ScheduleEvent, gc=False):
    """Ticks were passed over: nobody ran them in time, and the misfire policy does not want them now."""

    count: int


class ScheduleFailed(ScheduleEvent, gc=False):
    """A tick could not be dispatched; the schedule goes on with the next."""

    tick_ms: int
    reason: str


class ScheduleAdded(ScheduleEvent, gc=False):
    """It is in the store."""

    source: str
    """code or api."""


class ScheduleChanged(ScheduleEvent, gc=False):
    """It has another definition."""

    source: str


class SchedulePaused(ScheduleEvent, gc=False):
    """It does not run."""


class ScheduleResumed(ScheduleEvent, gc=False):
    """It runs again, from its next tick on."""


class ScheduleTriggered(ScheduleEvent, gc=False):
    """Somebody had it run out of turn."""

    job_id: str


class ScheduleRemoved(ScheduleEvent, gc=False):
    """It is gone; jobs that it dispatched are not."""


class ScheduleOrphaned(ScheduleEvent, gc=False):
    """No scheduler has it in its code any more: it does not run, until one does, or it is removed."""


class SchedulerStarted(Event, gc=False):
    """A scheduler is about to look after the schedules."""

    scheduler: str
    schedules: int
    """How many its code has."""


class SchedulerStopped(Event, gc=False):
    """It has stopped."""

    scheduler: str
