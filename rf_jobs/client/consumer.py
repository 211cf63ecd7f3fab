"""Leasing jobs by hand, without a worker."""

from __future__ import annotations

import logging
import traceback
from typing import Any
from uuid import UUID

from rf_jobs.client.offload import PAYLOAD_RETRY_SECONDS, Offload
from rf_jobs.client.protection import burial, parking
from rf_jobs.core import transitions
from rf_jobs.core.lifecycle import Lifecycle
from rf_jobs.core.records import clip, error_entry
from rf_jobs.core.transitions import AttemptEnd
from rf_jobs.model import codec, envelope
from rf_jobs.model.envelope import Envelope
from rf_jobs.model.events import JobCompleted, JobDied, JobParked, JobReleased, JobRetried, JobSnoozed
from rf_jobs.model.jobclass import registry
from rf_jobs.model.sealing import Guard
from rf_jobs.store.shapes import Ending, Leased, Retention, Verdict
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.errors import (
    BackendError,
    InvalidOption,
    JobError,
    MissingKey,
    MissingPayloadStore,
    RfJobsError,
    SerializationError,
    StaleLease,
)
from rf_jobs.words.ids import new_token
from rf_jobs.words.timing import Duration, millis, mono

log = logging.getLogger("rf_jobs.client")
MAX_REASON, MAX_MESSAGE = 200, 2_000
RECLAIM_LIMIT = 1_000
"""As many as one call may lease."""


class Account:
    """One attempt's figures, for its event and its error record."""

    def __init__(self, leased: Leased, job_class: str, worker: str, now: int) -> None:
        self.leased = leased
        self._job_class = job_class
        self._worker = worker
        self._began = mono()
        self._wait = max(0.0, (now - leased.ready_ms) / 1000)
        self._total = max(0.0, (now - leased.first_ms) / 1000)

    def event(self) -> tuple[str, str, str, int, str, float, float, float, str]:
        """The fields that all ends of an attempt have; nothing here records a span."""
        leased, took = self.leased, mono() - self._began
        return (
            leased.id, leased.queue, self._job_class, leased.attempt, self._worker, self._wait, took, self._total + took, "",
        )  # fmt: skip

    def error(self, kind: str, message: str, trace: str = "") -> bytes:
        """The entry of the error history."""
        ran = mono() - self._began
        return error_entry(kind, message, trace, worker=self._worker, attempt=self.leased.attempt, ran=ran)

    def ending(self, verb: str, number: int = 0, reason: str = "", data: bytes = b"") -> Ending:
        """For the store."""
        leased = self.leased
        return Ending(verb, leased.queue, leased.id, leased.token, number, reason, data)


class LeasedJob:
    """A job in the hands of a hand-written consumer. ``envelope`` is the message; ``job`` the instance, where this
    process knows its class. Each method raises ``StaleLease`` where the lease ran out meanwhile, or the job was ended before;
    an end that raised anything else may be tried again."""

    def __init__(self, consumer: Consumer, account: Account, letter: Envelope, lease_ms: int) -> None:
        leased = account.leased
        self._consumer = consumer
        self._account = account
        self._lease_ms = lease_ms
        self._ended = ""
        self.id = UUID(leased.id)
        self.queue = leased.queue
        self.attempt = leased.attempt
        self.fencing_token = leased.epoch
        self.envelope = letter

    @property
    def job(self) -> Any:
        """The job. Raises ``UnknownJobClass`` or ``SerializationError``."""
        return codec.decode_payload(registry.get(self.envelope.job), self.envelope.args, self.envelope.ver)

    async def complete(self, result: Any = None) -> None:
        """It is done; ``result`` is kept for the ``result_ttl`` of the class, else of the settings."""
        data = b"" if result is None else self._consumer.closed(self.envelope, codec.encode_value(result, "result"))
        ending = self._account.ending("complete", self._consumer.result_ttl_ms(self.envelope.job), data=data)
        await self._end(AttemptEnd(ending, JobCompleted(*self._account.event())))

    async def retry(self, delay: Duration = 0, reason: str = "") -> None:
        """Again, after ``delay``; whether attempts are left is the consumer's business. A ``reason`` is a failure, and
        stands in the error history; without one it is a retry that was asked for."""
        delay_ms, message = millis(delay, "delay"), clip(reason, MAX_MESSAGE)
        why, kind = (clip(reason, MAX_REASON), "Failed") if message else ("requested", "")
        data = self._account.error(kind, message) if message else b""
        event = JobRetried(*self._account.event(), why, kind, message, "", delay_ms / 1000)
        await self._end(AttemptEnd(self._account.ending("retry", delay_ms, why, data), event))

    async def fail(self, reason: str) -> None:
        """To the dead letters."""
        why, message = clip(reason, MAX_REASON), clip(reason, MAX_MESSAGE)
        event = JobDied(*self._account.event(), why, "Failed", message)
        ending = self._account.ending("bury", reason=why, data=self._account.error("Failed", message))
        await self._end(AttemptEnd(ending, event))

    async def release(self) -> None:
        """Hand it back untouched; not an attempt."""
        event = JobReleased(*self._account.event(), "released")
        await self._end(AttemptEnd(self._account.ending("release", reason="released"), event))

    async def _end(self, end: AttemptEnd) -> None:
        """The store takes an ending that is sent again for the first one, whatever it says; so a second is stopped here."""
        if self._ended:
            raise StaleLease(f"job {self.id} was ended before ({self._ended}); a leased job can be ended once")
        self._ended = end.ending.verb
        try:
            await self._consumer.end(end)
        except StaleLease:
            raise
        except BaseException:  # whether it came through is not known: the same call says so
            self._ended = ""
            raise

    async def extend(self, by: Duration | None = None) -> None:
        """Hold the lease for longer: ``by``, or as long as at first, from now."""
        await self._consumer.extend(self._account.leased, self._lease_ms if by is None else millis(by, "extension"))

    def __repr__(self) -> str:
        return f"<LeasedJob {self.id} of {self.queue!r}, attempt {self.attempt}>"


class Consumer:
    """Leases and ends. Holds no timer: leases run out unless extended."""

    def __init__(self, lifecycle: Lifecycle, retention: Retention, settings: Settings, offload: Offload) -> None:
        self._offload = offload
        self.id = f"c{new_token()}"
        self._lifecycle = lifecycle
        self._commands = lifecycle.store.commands
        self._retention = retention
        self._settings = settings
        self._nonce = 0

    async def lease(self, queue: str, count: int, lease_ms: int) -> list[LeasedJob]:
        """Up to ``count`` jobs, after taking back those whose lease ran out: no worker may serve this queue."""
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= 1_000:
            raise InvalidOption(f"pop_batch was asked for {count!r} jobs; ask for 1 to 1000")
        if lease_ms <= 0:
            raise InvalidOption(f"lease is {lease_ms / 1000:g} s; it must be at least a millisecond")
        max_crashes = self._settings.worker.max_crashes
        await self._lifecycle.apply(
            transitions.reclaim(self._commands, RECLAIM_LIMIT, max_crashes, self._retention, [queue])
        )
        self._nonce += 1
        fetched = await self._lifecycle.apply(
            transitions.fetch(self._commands, self.id, self._nonce, count, lease_ms, [queue])
        )
        good: list[LeasedJob] = []
        bad: list[AttemptEnd] = []
        for leased in fetched.jobs:
            try:
                letter = await self._open(leased)
            except (SerializationError, MissingKey, MissingPayloadStore, BackendError) as error:
                bad.append(_set_aside(Account(leased, "", self.id, fetched.now_ms), error))
            else:
                good.append(LeasedJob(self, Account(leased, letter.job, self.id, fetched.now_ms), letter, lease_ms))
        if bad:
            await self._settle(bad)
        return good

    async def _open(self, leased: Leased) -> Envelope:
        """The message; of a class that is known here opened too, of another as it is."""
        protection = self._offload.protection
        letter = protection.read(leased.id, leased.data)
        await self._offload.load(letter)
        entry = registry.find(letter.job)
        if entry is not None:
            protection.unseal(letter, entry)
        return letter

    def closed(self, letter: Envelope, data: bytes) -> bytes:
        """A result as it may lie in the store."""
        return data if letter.enc is None else Guard(letter, None, self._offload.protection.keyring).result(data)

    async def _settle(self, ends: list[AttemptEnd]) -> None:
        """End what nobody will see. What the server would not hear comes back when its lease ends; the others are leased
        and must reach the caller."""
        try:
            await self._lifecycle.apply(transitions.finish(self._commands, ends, self._retention))
        except RfJobsError as error:
            log.warning("%d jobs with envelopes that cannot be read stay leased for now: %s", len(ends), error)

    def result_ttl_ms(self, job_class: str) -> int:
        """How long a result of this class is kept."""
        entry = registry.find(job_class)
        ttl = entry.options.result_ttl if entry is not None else None
        return millis(self._settings.jobs.result_ttl_seconds if ttl is None else ttl)

    async def end(self, end: AttemptEnd) -> None:
        """End one attempt."""
        verdict = (await self._lifecycle.apply(transitions.finish(self._commands, [end], self._retention)))[0]
        if verdict == Verdict.REFUSED:
            raise StaleLease(f"the lease of job {end.ending.id} is no longer held; another worker has or had the job")

    async def extend(self, leased: Leased, lease_ms: int) -> None:
        """Extend one lease."""
        call = self._commands.beat(
            self.id, lease_ms, lease_ms, {"state": "manual"}, [(leased.queue, leased.id, leased.token)]
        )
        if (await self._lifecycle.store.run(call)).lost:
            raise StaleLease(f"the lease of job {leased.id} is no longer held; another worker has or had the job")


def _set_aside(account: Account, error: JobError) -> AttemptEnd:
    """What a worker does with a job that it cannot open: one of a newer version, or without the key, is parked, damage is
    buried; and where the payload store is away, it is tried again later."""
    why = ""
    if isinstance(error, (MissingKey, MissingPayloadStore)):
        why = parking(error)
    elif isinstance(error, SerializationError) and envelope.is_newer(account.leased.data):
        why = "its envelope is of a newer version than this consumer reads"
    if why:
        return AttemptEnd(account.ending("park", reason=why), JobParked(*account.event(), why))
    if not isinstance(error, SerializationError):
        why = f"its payload could not be loaded: {error}"[:MAX_REASON]
        delay = PAYLOAD_RETRY_SECONDS
        return AttemptEnd(
            account.ending("snooze", round(delay * 1000), why), JobSnoozed(*account.event(), why, delay=delay)
        )
    reason = burial(error)
    kind, message = f"{type(error).__module__}.{type(error).__qualname__}", clip(str(error), MAX_MESSAGE)
    trace = "".join(traceback.format_exception(error))
    event = JobDied(*account.event(), reason, kind, message, trace)
    return AttemptEnd(account.ending("bury", reason=reason, data=account.error(kind, message, trace)), event)
