"""A schedule as code says it: ``scheduler.schedule("0 0 * * *").job(DailyReport()).jitter(60)``."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from rf_jobs.client.ticking import JobMaker
from rf_jobs.model.job import Job
from rf_jobs.model.schedule import Definition, ScheduleOptions, named
from rf_jobs.words import options as checks
from rf_jobs.words.cron import cron as read_cron
from rf_jobs.words.errors import InvalidOption, SchedulerError
from rf_jobs.words.ids import queue_name
from rf_jobs.words.recurrence import Every, Misfire
from rf_jobs.words.states import Priority
from rf_jobs.words.timing import Duration, millis, moment_ms
from rf_jobs.words.zones import zone


class Schedule:
    """One schedule. Each method checks its argument at once (``SchedulerError``, ``InvalidOption``) and answers with the same
    object. Its name is that of the job's class unless ``name`` gives another."""

    def __init__(self, cron: str | None = None) -> None:
        if cron is not None:
            read_cron(cron)
        self._cron = cron
        self._every: Duration | None = None
        self._job: Job | None = None
        self._name = ""
        self._options: ScheduleOptions = {}

    def job(self, job: Job) -> Self:
        """What it dispatches."""
        if not isinstance(job, Job):
            raise InvalidOption(f"a schedule's job is {job!r}; give an instance of a Job class")
        self._job = job
        return self

    def every(self, interval: Duration) -> Self:
        """By an interval in real time instead of a cron expression; counted from ``start``, or from 1970, so that a restart does
        not move it."""
        Every.of(interval)
        self._every = interval
        return self

    def name(self, name: str) -> Self:
        """What it is called; no two schedules of a namespace have one name."""
        self._name = named(name)
        return self

    def timezone(self, name: str) -> Self:
        """The zone that the cron expression is read in."""
        zone(name)
        self._options["timezone"] = name
        return self

    def jitter(self, jitter: Duration) -> Self:
        """Each run is later by up to so much: the same for all schedulers, another for each tick."""
        millis(jitter, "jitter")
        self._options["jitter"] = jitter
        return self

    def misfire(self, policy: Misfire | str, *, grace: Duration | None = None) -> Self:
        """What becomes of ticks that are more than ``grace`` (60 s) late: ``skip`` them, run ``once`` for all (the default),
        or run ``all``."""
        self._options["misfire"] = Misfire.of(policy)
        if grace is not None:
            millis(grace, "grace")
            self._options["grace"] = grace
        return self

    def start(self, moment: datetime) -> Self:
        """No run before it; an interval is counted from it."""
        moment_ms(moment, "start")
        self._options["start"] = moment
        return self

    def until(self, moment: datetime) -> Self:
        """No run after it."""
        moment_ms(moment, "until")
        self._options["until"] = moment
        return self

    def on_queue(self, queue: str) -> Self:
        """The queue that its jobs go to."""
        self._options["queue"] = queue_name(queue)
        return self

    def priority(self, priority: Priority | str | int) -> Self:
        """Their priority within the queue."""
        self._options["priority"] = checks.priority(priority)
        return self

    def max_attempts(self, attempts: int) -> Self:
        """How often each is tried in all."""
        self._options["max_attempts"] = checks.attempts(attempts)
        return self

    def expires_in(self, duration: Duration) -> Self:
        """One that has not started by then, from its dispatch, ends as ``expired``."""
        if millis(duration, "expires_in") <= 0:
            raise InvalidOption(f"expires_in is {duration!r}; it must be more than 0 seconds")
        self._options["expires_in"] = duration
        return self

    def tags(self, *tags: str) -> Self:
        """Tags beside those of their class."""
        self._options["tags"] = checks.tags(tags)
        return self

    def define(self, maker: JobMaker, timezone: str) -> tuple[str, Definition]:
        """Its name and what lies in the store for it. Raises ``SchedulerError`` where something is missing or does not go
        together."""
        if self._job is None:
            raise SchedulerError(f"{self!r} has no job; add .job(...)")
        name = self._name or self._job.__job_class__.short_name
        return name, maker.define(named(name), self._job, self._cron, self._every, timezone, self._options)

    def __repr__(self) -> str:
        what = f"{self._cron!r}" if self._cron is not None else f"every {self._every!r}"
        return f"<Schedule {self._name or '(no name)'} {what}>"
