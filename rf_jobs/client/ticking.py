"""From a schedule's definition to the job of one tick, and from a job to a definition."""

from __future__ import annotations

from uuid import UUID

import msgspec

from rf_jobs.client.dispatching import Preparer
from rf_jobs.client.extra import Extra
from rf_jobs.client.pending import Choices
from rf_jobs.client.protection import Protection
from rf_jobs.core.transitions import Dispatching
from rf_jobs.model import codec
from rf_jobs.model.envelope import WIRE_VERSION, Envelope
from rf_jobs.model.events import JobDispatched
from rf_jobs.model.job import Job
from rf_jobs.model.jobclass import Registry
from rf_jobs.model.middleware import MiddlewareStack
from rf_jobs.model.schedule import Definition, ScheduleOptions, settings_of
from rf_jobs.store.shapes import Draft
from rf_jobs.words.config_settings import JobsSettings
from rf_jobs.words.errors import InvalidOption, PayloadTooLarge, SchedulerError
from rf_jobs.words.recurrence import tick_id
from rf_jobs.words.states import Priority, State
from rf_jobs.words.timing import Duration, mono, now_ms


class JobMaker:
    """Makes the jobs of ticks as a dispatch would, from what the class says by then. Of a class that is not known here the job is
    dispatched as it was defined: whoever knows it runs it."""

    def __init__(
        self,
        preparer: Preparer,
        protection: Protection,
        middleware: MiddlewareStack,
        jobs: JobsSettings,
        registry: Registry,
    ) -> None:
        self._preparer = preparer
        self._protection = protection
        self._middleware = middleware
        self._jobs = jobs
        self._registry = registry

    def define(
        self, name: str, job: object, cron: str | None, every: Duration | None, timezone: str, options: ScheduleOptions
    ) -> Definition:
        """What lies in the store for this. Raises ``SchedulerError``, ``InvalidOption``, ``SerializationError``,
        ``PayloadTooLarge`` or ``MissingKey``."""
        if not isinstance(job, Job):
            raise InvalidOption(f"schedule {name!r} got {job!r} for its job; give an instance of a Job class")
        entry = job.__job_class__
        letter = self._letter(name, entry.name, msgspec.Raw(codec.encode_payload(job, entry)), entry.version)
        size = len(bytes(letter.args))
        if size > self._jobs.max_payload_bytes:
            raise PayloadTooLarge(
                f"the payload of schedule {name!r} takes {size} bytes, the limit (max_payload_bytes) is"
                f" {self._jobs.max_payload_bytes}; keep large data elsewhere and schedule a reference to it"
            )
        if entry.sealing is not None:
            entry.sealing.seal(letter, self._protection.keyring)
        definition = Definition(
            job=entry.name, args=letter.args, ver=entry.version, enc=letter.enc,
            home=entry.options.queue or self._jobs.default_queue,
            **settings_of(name, cron, every, timezone, options),
        )  # fmt: skip
        definition.timetable(name)
        return definition

    def _letter(self, name: str, job_class: str, args: msgspec.Raw, version: int) -> Envelope:
        """An envelope that a payload is sealed in, or opened from, while it is no job's yet."""
        return Envelope(WIRE_VERSION, str(tick_id(name, 0)), job_class, "", 0, args, version)

    def job(self, name: str, definition: Definition) -> Job | None:
        """The job that is dispatched, None where its class is not known here. Raises ``SerializationError`` or
        ``MissingKey``."""
        entry = self._registry.find(definition.job)
        if entry is None:
            return None
        letter = self._letter(name, definition.job, definition.args, definition.ver)
        letter.enc = definition.enc
        self._protection.unseal(letter, entry)
        found: Job = codec.decode_payload(entry, letter.args, letter.ver)
        return found

    def make(self, name: str, definition: Definition, job: Job | None, job_id: UUID, tick: int) -> Dispatching:
        """The dispatch of one tick. Raises as a dispatch does, ``SchedulerError`` where it can't be made here."""
        if job is None:
            return self._make_unknown(name, definition, job_id, tick)
        choices = Choices()
        choices.extra = Extra(schedule=name, tick=tick)
        choices.id = job_id
        choices.queue = definition.queue or None
        choices.priority = None if definition.pri is None else Priority(definition.pri)
        choices.max_attempts = definition.max
        choices.expires_ms = definition.exp
        choices.tags = None if definition.tags is None else tuple(definition.tags)
        made = self._preparer.prepare(job, choices)
        if len(made.draft.data) > self._jobs.max_payload_bytes:
            raise PayloadTooLarge(
                f"the job takes {len(made.draft.data)} bytes, the limit (max_payload_bytes) is {self._jobs.max_payload_bytes}"
            )
        return made

    def _make_unknown(self, name: str, definition: Definition, job_id: UUID, tick: int) -> Dispatching:
        if definition.enc is not None:
            raise SchedulerError(
                f"{definition.job} is encrypted and not known to this scheduler; import its module where schedulers run"
            )
        began, now = mono(), now_ms()
        letter = Envelope(
            WIRE_VERSION, str(job_id), definition.job, definition.queue or definition.home or self._jobs.default_queue, now,
            definition.args, definition.ver, int(Priority.NORMAL if definition.pri is None else definition.pri), 0,
            definition.max or 0, 0 if definition.exp is None else now + definition.exp, definition.tags or [],
        )  # fmt: skip
        letter.sch, letter.tick = name, tick
        self._middleware.prepare(letter)
        data = self._protection.signed(letter)
        event = JobDispatched(
            letter.id, letter.queue, letter.job, State.READY, 0, letter.pri, letter.hdr.tp if letter.hdr else "", began
        )
        valid = "" if definition.exp is None else f"!{definition.exp}"
        return Dispatching(job_id, Draft(letter.id, letter.queue, letter.pri, valid, data), event)
