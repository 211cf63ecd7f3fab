"""Leasing jobs by hand, without a worker."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from rf_jobs.core import transitions
from rf_jobs.core.lifecycle import Lifecycle
from rf_jobs.core.transitions import AttemptEnd
from rf_jobs.model import codec, envelope
from rf_jobs.model.events import AttemptEnded, JobCompleted, JobDied, JobReleased, JobRetried
from rf_jobs.model.jobclass import registry
from rf_jobs.store.shapes import Ending, Leased, Retention
from rf_jobs.words.errors import InvalidOption, StaleLease
from rf_jobs.words.ids import new_token
from rf_jobs.words.timing import Duration, millis, mono, now_ms


class LeasedJob:
    """A job in the hands of a hand-written consumer. ``envelope`` is the message; ``job`` the instance, where this
    process knows its class. Each method raises ``StaleLease`` where the lease ran out meanwhile."""

    def __init__(self, consumer: Consumer, leased: Leased, now: int, lease_ms: int) -> None:
        self._consumer = consumer
        self._leased = leased
        self._lease_ms = lease_ms
        self._began = mono()
        self._wait = max(0.0, (now - leased.ready_ms) / 1000)
        self._total = max(0.0, (now - leased.first_ms) / 1000)
        self.id = UUID(leased.id)
        self.queue = leased.queue
        self.attempt = leased.attempt
        self.fencing_token = leased.epoch
        self.envelope = envelope.decode(leased.data)

    @property
    def job(self) -> Any:
        """The job. Raises ``UnknownJobClass`` or ``SerializationError``."""
        return codec.decode_payload(registry.get(self.envelope.job), self.envelope.args, self.envelope.ver)

    async def complete(self, result: Any = None) -> None:
        """It is done; ``result`` is kept for an hour."""
        data = b"" if result is None else codec.encode_value(result, "result")
        await self._end("complete", JobCompleted, number=3_600_000, data=data)

    async def retry(self, delay: Duration = 0, reason: str = "") -> None:
        """Again, after ``delay``; whether attempts are left is the consumer's business."""
        await self._end("retry", JobRetried, number=millis(delay, "delay"), reason=reason or "requested")

    async def fail(self, reason: str) -> None:
        """To the dead letters."""
        text = str(reason)
        error = {
            "type": "Failed",
            "message": text,
            "traceback": "",
            "worker": self._consumer.id,
            "at": now_ms(),
            "attempt": self.attempt,
        }
        await self._end("bury", JobDied, reason=text[:200], data=codec.encode_value(error, "error"))

    async def release(self) -> None:
        """Hand it back untouched; not an attempt."""
        await self._end("release", JobReleased, reason="released")

    async def extend(self, by: Duration | None = None) -> None:
        """Hold the lease for longer: ``by``, or as long as at first, from now."""
        await self._consumer.extend(self._leased, self._lease_ms if by is None else millis(by, "extension"))

    async def _end(
        self, verb: str, kind: type[AttemptEnded], *, number: int = 0, reason: str = "", data: bytes = b""
    ) -> None:
        leased = self._leased
        took = mono() - self._began
        event = kind(
            leased.id,
            leased.queue,
            self.envelope.job,
            leased.attempt,
            self._consumer.id,
            self._wait,
            took,
            self._total + took,
        )
        await self._consumer.end(
            AttemptEnd(Ending(verb, leased.queue, leased.id, leased.token, number, reason, data), event)
        )

    def __repr__(self) -> str:
        return f"<LeasedJob {self.id} of {self.queue!r}, attempt {self.attempt}>"


class Consumer:
    """Leases and ends. Holds no timer: leases run out unless extended."""

    def __init__(self, lifecycle: Lifecycle, retention: Retention) -> None:
        self.id = f"c{new_token()}"
        self._lifecycle = lifecycle
        self._retention = retention
        self._nonce = 0

    async def lease(self, queue: str, count: int, seconds: float) -> list[LeasedJob]:
        """Up to ``count`` jobs."""
        if not 1 <= count <= 1_000:
            raise InvalidOption(f"pop_batch was asked for {count!r} jobs; ask for 1 to 1000")
        if seconds <= 0:
            raise InvalidOption(f"lease is {timedelta(seconds=seconds)}; it must be more than 0 seconds")
        self._nonce += 1
        lease_ms = round(seconds * 1000)
        commands = self._lifecycle.store.commands
        fetched = await self._lifecycle.apply(
            transitions.fetch(commands, self.id, self._nonce, count, lease_ms, [queue])
        )
        return [LeasedJob(self, leased, fetched.now_ms, lease_ms) for leased in fetched.jobs]

    async def end(self, end: AttemptEnd) -> None:
        """End one attempt."""
        verdict = (
            await self._lifecycle.apply(transitions.finish(self._lifecycle.store.commands, [end], self._retention))
        )[0]
        if verdict == 0:
            raise StaleLease(f"the lease of job {end.ending.id} is no longer held; another worker has or had the job")

    async def extend(self, leased: Leased, lease_ms: int) -> None:
        """Extend one lease."""
        commands = self._lifecycle.store.commands
        call = commands.beat(
            self.id, lease_ms, lease_ms, {"state": "manual"}, [(leased.queue, leased.id, leased.token)]
        )
        if (await self._lifecycle.store.run(call)).lost:
            raise StaleLease(f"the lease of job {leased.id} is no longer held; another worker has or had the job")
