"""From a leased job's bytes to the job: its envelope is checked and read, its payload loaded, unsealed and decoded."""

from __future__ import annotations

from rf_jobs.client.offload import PAYLOAD_RETRY_SECONDS, Offload
from rf_jobs.client.protection import burial, parking
from rf_jobs.model import codec, envelope
from rf_jobs.model.envelope import Envelope
from rf_jobs.model.jobclass import JobClass, Registry
from rf_jobs.words.control import Snooze
from rf_jobs.words.errors import (
    BackendError,
    InvalidOption,
    MissingKey,
    MissingPayloadStore,
    SerializationError,
    WorkerError,
)
from rf_jobs.worker.attempt import Attempt
from rf_jobs.worker.outcome import Failed, Outcome, Stopped


class Opener:
    """Opens jobs for a runner. What can't or must not be run becomes an outcome: it is parked, expired, buried or put off."""

    def __init__(self, registry: Registry, offload: Offload) -> None:
        self._registry = registry
        self._offload = offload
        self._protection = offload.protection
        self._read = self._protection.read
        self._plain = self._protection.plain

    def open(self, attempt: Attempt) -> Envelope | Outcome | None:
        """Read the message. Answers with an outcome where it can't or must not be run, with None where its payload has to be
        loaded first."""
        leased = attempt.leased
        attempt.begin()
        try:
            letter = attempt.letter = (
                envelope.decode(leased.data) if self._plain else self._read(leased.id, leased.data)
            )
        except MissingKey as error:
            return Stopped("park", parking(error))
        except SerializationError as error:
            if envelope.is_newer(leased.data):
                return Stopped("park", "its envelope is of a newer version than this worker reads")
            return Failed(error, burial(error), for_good=True)
        if leased.expires_ms and attempt.now_ms >= leased.expires_ms:
            return Stopped("expire", "not started in time")
        entry = self._registry.find(letter.job)
        if entry is None:
            return Stopped("park", f"no worker knows the class {letter.job}"[:200])
        if letter.ver > entry.version:
            return Stopped("park", f"written by version {letter.ver} of the class, this worker has {entry.version}")
        if letter.off is not None:
            attempt.entry = entry
            return None
        return self._decode(attempt, letter, entry)

    async def load(self, attempt: Attempt) -> Envelope | Outcome:
        """Have the payload that lies elsewhere, and go on."""
        letter, entry = attempt.letter, attempt.entry
        if letter is None or entry is None:
            raise WorkerError("only an envelope that was read says where its payload is")
        try:
            await self._offload.load(letter)
        except MissingPayloadStore as error:
            return Stopped("park", parking(error))
        except BackendError as error:  # the payload store's fault, and no attempt of the job
            return Failed(Snooze(PAYLOAD_RETRY_SECONDS, f"its payload could not be loaded: {error}"[:200]))
        except SerializationError as error:
            return Failed(error, burial(error), for_good=True)
        return self._decode(attempt, letter, entry)

    def _decode(self, attempt: Attempt, letter: Envelope, entry: JobClass) -> Envelope | Outcome:
        try:
            if letter.enc is not None or entry.sealing is not None:
                self._protection.unseal(letter, entry)
            attempt.job = codec.decode_payload(entry, letter.args, letter.ver)
        except MissingKey as error:
            return Stopped("park", parking(error))
        except (SerializationError, InvalidOption) as error:
            return Failed(error, burial(error), for_good=True)
        attempt.entry = entry
        if letter.job != entry.name:  # it was dispatched under an alias
            letter.job = entry.name
        return letter
