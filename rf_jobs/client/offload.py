"""The claim check: payloads above a size go to a payload store, and the envelope says where they are.

A payload is written down in the server first, then stored, then its job is dispatched; so whatever dies in between, the
sweep finds it. Its name is made for one dispatch alone, which is why nothing is removed that another dispatch needs.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Awaitable, Iterable, Sequence
from typing import TypeVar, cast

import msgspec
from msgspec.structs import replace

from rf_jobs.client.configured import imported
from rf_jobs.client.payloads import FilePayloads, PayloadStore
from rf_jobs.client.protection import Protection, too_large
from rf_jobs.core.transitions import Dispatching
from rf_jobs.model import envelope
from rf_jobs.model.envelope import CLOSED_VERSION, Claim, Envelope
from rf_jobs.model.jobclass import JobClass
from rf_jobs.store.redis import AsyncStore
from rf_jobs.words.config_settings import JobsSettings
from rf_jobs.words.errors import BackendError, ConfigError, MissingPayloadStore, PayloadLost, PayloadTooLarge
from rf_jobs.words.states import State
from rf_jobs.words.timing import mono

T = TypeVar("T")
log = logging.getLogger("rf_jobs.client")
AT_ONCE = 16
"""Payloads that one dispatch stores at the same time."""
STORE_TIMEOUT_SECONDS = 60.0
PAYLOAD_RETRY_SECONDS = 10.0
"""After which a job is tried again whose payload could not be loaded."""
PAGE, PAGES = 100, 50
"""Payloads that a sweep looks at with one call, and how often it does so."""
LOOK_AGAIN_SECONDS = 600.0
"""Between two looks whether a payload is still needed."""
ID_LENGTH = 36
"""Of a payload's name: it begins with the id of the job that may need it."""
OVER = (State.COMPLETED, State.EXPIRED)
"""Jobs that never run again. A dead letter may be replayed, and one that was cancelled because of it comes back with it."""


class Offload:
    """Stores, loads and removes payloads for one manager. The payload store is looked for when it is first needed: many who
    have the settings only look at queues."""

    def __init__(
        self, store: AsyncStore, payloads: PayloadStore | None, jobs: JobsSettings, protection: Protection
    ) -> None:
        """Raises ``ConfigError`` for settings that contradict each other."""
        if payloads is None:
            _check(jobs)
        elif missing := [name for name in ("put", "get", "delete") if not callable(getattr(payloads, name, None))]:
            raise ConfigError(f"payloads is {payloads!r}, which has no {missing[0]}; give a PayloadStore")
        self.protection = protection
        self._store = store
        self._jobs = jobs
        self._payloads = payloads
        self._max_bytes = jobs.max_payload_bytes
        self.above = jobs.offload_above_bytes
        """Payloads of more bytes are stored elsewhere; None: none are."""
        self._grace_ms = round(jobs.offload_grace_seconds * 1000)
        self._swept = mono()

    def find_store(self) -> PayloadStore | None:
        """The payload store, None where there is none. Raises ``ConfigError`` for one that can't be had."""
        if self._payloads is None:
            self._payloads = _payloads_of(self._jobs)
        return self._payloads

    @property
    def has_store(self) -> bool:
        """Whether payloads can be loaded."""
        try:
            return self.find_store() is not None
        except ConfigError:
            return False

    def serves(self, letter: Envelope, data: bytes, entry: JobClass) -> bool:
        """Whether a parked job of this class could be opened here."""
        return self.protection.serves(letter, data, entry) and (letter.off is None or self.has_store)

    async def store_large(self, items: Sequence[Dispatching]) -> list[Dispatching]:
        """The same dispatches, the large payloads among them stored elsewhere. Raises ``BackendError``, or ``PayloadTooLarge``
        for one that is too large all the same."""
        result, above = list(items), self.above
        if above is None:
            return result
        found = [
            (at, envelope.decode(item.draft.data)) for at, item in enumerate(items) if len(item.draft.data) > above
        ]
        large = [(at, letter) for at, letter in found if len(bytes(letter.args)) > above]
        if large:
            await self.put([letter for _, letter in large])
        for at, letter in large:
            draft = result[at].draft
            result[at] = replace(result[at], draft=replace(draft, data=self.protection.signed(letter)))
        for item in result:
            self.check(item)
        return result

    def check(self, item: Dispatching) -> None:
        """Raise ``PayloadTooLarge`` for what is more than the server should hold."""
        if len(item.draft.data) > self._max_bytes:
            raise PayloadTooLarge(too_large(item.event.job_class, len(item.draft.data), self._max_bytes))

    async def put(self, letters: Sequence[Envelope]) -> None:
        """Store the payloads of envelopes, and put claims in their place. Raises ``BackendError``."""
        payloads = [bytes(letter.args) for letter in letters]
        names = [f"{letter.id}.{secrets.token_hex(8)}" for letter in letters]
        await self._store.run(self._store.commands.payloads_add(names, self._grace_ms))
        for at in range(0, len(names), AT_ONCE):
            pairs = zip(names[at : at + AT_ONCE], payloads[at : at + AT_ONCE], strict=True)
            await _all(self._ask("put", self._payload_store().put(name, data)) for name, data in pairs)
        for letter, name, data in zip(letters, names, payloads, strict=True):
            letter.off = Claim(name, len(data), hashlib.sha256(data).hexdigest())
            letter.args = msgspec.Raw(b"{}")
            letter.v = CLOSED_VERSION

    async def load(self, letter: Envelope) -> None:
        """Put an offloaded payload back into its envelope.

        Raises ``MissingPayloadStore`` where none is configured here, ``BackendError`` where it can't be reached, and
        ``PayloadLost`` where it does not have this payload, or another one.
        """
        claim = letter.off
        if claim is None:
            return
        if not claim.ref.startswith(f"{letter.id}."):
            raise PayloadLost(f"the envelope claims the payload {claim.ref[:100]!r}, which is another job's")
        data = await self._ask("get", self._payload_store().get(claim.ref))
        if data is None:
            raise PayloadLost(
                f"the payload {claim.ref} ({claim.size} bytes) is not in the payload store; was it removed by hand, or is"
                " this store not the one that clients use?"
            )
        if len(data) != claim.size or hashlib.sha256(data).hexdigest() != claim.sha256:
            raise PayloadLost(
                f"the payload {claim.ref} is not what was stored: {len(data)} bytes of another digest, not {claim.size}"
            )
        letter.args = msgspec.Raw(data)
        letter.off = None

    async def sweep(self, look_again: float = LOOK_AGAIN_SECONDS) -> int:
        """Remove payloads that no job needs any more; answers how many. Each is looked at again after ``look_again`` seconds.
        Harmless when many do it at once. Raises ``BackendError``, or ``MissingPayloadStore``."""
        payloads, commands, removed = self._payload_store(), self._store.commands, 0
        for _ in range(PAGES):
            due = await self._store.run(commands.payloads_due(PAGE, round(look_again * 1000)))
            names = await self._useless(due)
            if names:
                await _all(self._ask("delete", payloads.delete(name)) for name in names)
                await self._store.run(commands.payloads_drop(names))
                removed += len(names)
            if len(due) < PAGE:
                break
        return removed

    async def _useless(self, names: Sequence[str]) -> list[str]:
        """Those of these that no job needs."""
        if not names:
            return []
        commands, ids = self._store.commands, [name[:ID_LENGTH] for name in names]
        letters, *metas = await self._store.run_many([commands.envelopes(ids), *(commands.meta(each) for each in ids)])
        found = zip(names, letters, metas, strict=True)
        return [name for name, data, meta in found if not _is_needed(name, data or b"", meta.get("state", ""))]

    async def sweep_now_and_then(self, every: float = LOOK_AGAIN_SECONDS / 10) -> None:
        """What a worker's upkeep calls each time: sweeps once in ``every`` seconds."""
        now = mono()
        if now - self._swept < every or not self.has_store:
            return
        self._swept = now
        try:
            if removed := await self.sweep():
                log.info("removed %d offloaded payloads whose jobs are over", removed)
        except BackendError as error:
            log.warning("the sweep of offloaded payloads failed: %s; trying again later", error)

    def _payload_store(self) -> PayloadStore:
        try:
            found = self.find_store()
        except ConfigError as error:
            raise MissingPayloadStore(f"the payload is offloaded, and {error}") from error
        if found is None:
            raise MissingPayloadStore(
                "the payload is offloaded, and no payload store is configured here; set offload_path or offload_store in [jobs]"
            )
        return found

    async def _ask(self, what: str, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(STORE_TIMEOUT_SECONDS):
                return await answer
        except (BackendError, ConfigError) as error:
            raise BackendError(f"the payload store failed ({what}): {error}") from error
        except Exception as error:  # a client of somebody else's may raise anything
            raise BackendError(f"the payload store failed ({what}): {type(error).__name__}: {error}") from error


def digest_of(letter: Envelope) -> str:
    """Of the payload as it is sealed and stored, wherever it lies."""
    return letter.off.sha256 if letter.off is not None else hashlib.sha256(bytes(letter.args)).hexdigest()


async def _all(answers: Iterable[Awaitable[None]]) -> None:
    """Wait for all; where some fail, raise what the first of them raised."""
    for done in await asyncio.gather(*answers, return_exceptions=True):
        if isinstance(done, BaseException):
            raise done


def _is_needed(name: str, data: bytes, state: str) -> bool:
    if not data or state in OVER:
        return False
    letter = envelope.readable(data)
    # One that can't be read may be of a newer version.
    return letter is None or (letter.off is not None and letter.off.ref == name)


def _check(jobs: JobsSettings) -> None:
    if jobs.offload_path is not None and jobs.offload_store is not None:
        raise ConfigError("offload_path and offload_store are both set; leave one of them out")
    if jobs.offload_above_bytes is not None and jobs.offload_path is None and jobs.offload_store is None:
        raise ConfigError(
            "offload_above_bytes is set, and there is no payload store; set offload_path or offload_store in [jobs] too"
        )


def _payloads_of(jobs: JobsSettings) -> PayloadStore | None:
    """The payload store that the settings name. Raises ``ConfigError``."""
    if jobs.offload_store is None:
        return None if jobs.offload_path is None else FilePayloads(jobs.offload_path)
    found = imported("offload_store", jobs.offload_store)
    if not all(callable(getattr(found, method, None)) for method in ("put", "get", "delete")):
        raise ConfigError(f"offload_store is {jobs.offload_store!r}: {found!r} has no put, get and delete")
    return cast("PayloadStore", found)
