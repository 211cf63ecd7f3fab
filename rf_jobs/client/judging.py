"""Trying to open jobs as a worker with this process's code would, without running them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rf_jobs.client.protection import Protection
from rf_jobs.client.workflow.callbacks import BatchCallback, find
from rf_jobs.core.census import Found
from rf_jobs.core.records import clip
from rf_jobs.model import codec, envelope
from rf_jobs.model.envelope import WIRE_VERSION, Envelope
from rf_jobs.model.jobclass import JobClass, Registry
from rf_jobs.model.schedule import Definition
from rf_jobs.words.errors import ForgedEnvelope, MissingKey, SerializationError, UnknownJobClass
from rf_jobs.words.recurrence import tick_id

UNREAD = "not read: "
"""A verdict that begins so says that nobody knows: what would be needed is not here."""


class Judge:
    """Gives verdicts: what is wrong with a job, '' for nothing."""

    def __init__(self, protection: Protection, registry: Registry) -> None:
        self._protection = protection
        self._registry = registry
        self.examples: dict[str, Any] = {}
        """By its name, one job of each class of which there was one that could be opened."""

    async def page(self, page: Sequence[Found]) -> list[str]:
        """One for each."""
        return [self.job(job) for job in page]

    def job(self, job: Found) -> str:
        """Of a job that was dispatched."""
        if job.letter is None:
            newer = envelope.is_newer(job.data)
            return "its envelope is of a newer version than this code reads" if newer else "its envelope is damaged"
        try:
            letter = self._protection.read(job.id, job.data)
        except (MissingKey, ForgedEnvelope) as error:
            return self._class_fault(job.letter) or UNREAD + clip(error)
        except SerializationError as error:
            return clip(error)
        return self._letter(letter)

    def schedule(self, name: str, definition: Definition) -> str:
        """Of a job that a schedule will dispatch."""
        job_id = str(tick_id(name, 0))
        letter = Envelope(WIRE_VERSION, job_id, definition.job, definition.queue, 0, definition.args, definition.ver)
        letter.enc = definition.enc
        return self._letter(letter)

    def _class_fault(self, letter: Envelope) -> str:
        entry = self._registry.find(letter.job)
        if entry is None:
            return "no class has, or had, this name"
        if letter.ver > entry.version:
            return f"written by version {letter.ver} of the class, this code has {entry.version}"
        return ""

    def _letter(self, letter: Envelope) -> str:
        fault, entry = self._class_fault(letter), self._registry.find(letter.job)
        if fault or entry is None or letter.off is not None:  # a payload that lies elsewhere is not fetched
            return fault
        try:
            job = self._open(letter, entry)
            self.examples.setdefault(entry.name, job)
            return _callback_fault(job)
        except MissingKey as error:
            return UNREAD + clip(error)
        except SerializationError as error:
            # Of what is sealed an upgrade() may quote the values.
            sealed = (
                f"the payload does not fit {entry.name} version {entry.version}, or was tampered with; it is sealed"
            )
            return clip(error) if letter.enc is None else sealed

    def _open(self, letter: Envelope, entry: JobClass) -> Any:
        self._protection.unseal(letter, entry)
        return codec.decode_payload(entry, letter.args, letter.ver)


def _callback_fault(job: Any) -> str:
    """Whether the function that it calls for a batch is there."""
    try:
        if isinstance(job, BatchCallback):
            find(job.function)
    except UnknownJobClass as error:
        return clip(error)
    return ""
