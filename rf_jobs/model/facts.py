"""What a job's envelope says, as a handler may ask for it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from rf_jobs.model.envelope import Envelope
from rf_jobs.words.timing import from_ms


class Facts:
    """Reads an envelope when it is asked: it is made for every attempt, and most handlers ask for little."""

    __slots__ = ("_id", "_letter")

    _id: str
    _letter: Envelope

    @property
    def job_id(self) -> UUID:
        """The job's id, the same in every attempt."""
        return UUID(self._id)

    @property
    def id(self) -> str:
        """``job_id`` as text."""
        return self._id

    @property
    def job_class(self) -> str:
        """The class's stable name."""
        return self._letter.job

    @property
    def is_sealed(self) -> bool:
        """Whether the whole payload is encrypted, and so what is kept of the job."""
        return self._letter.enc is not None and not self._letter.enc.fields

    @property
    def tags(self) -> tuple[str, ...]:
        """Those of the class and of the dispatch."""
        return tuple(self._letter.tags)

    @property
    def headers(self) -> dict[str, str]:
        """Propagated baggage."""
        return self._letter.hdr.bg if self._letter.hdr is not None else {}

    @property
    def conversation(self) -> str:
        """What all jobs of one workflow share; '' for a job of its own."""
        return self._letter.hdr.cv if self._letter.hdr is not None else ""

    @property
    def traceparent(self) -> str:
        """W3C traceparent of the dispatch, '' where it was not traced."""
        return self._letter.hdr.tp if self._letter.hdr is not None else ""

    @property
    def tracestate(self) -> str:
        """W3C tracestate of the dispatch."""
        return self._letter.hdr.ts if self._letter.hdr is not None else ""

    @property
    def dispatched_ms(self) -> int:
        """When the job was dispatched: ms since 1970 by the client's clock."""
        return self._letter.at

    @property
    def idempotency_key(self) -> str:
        """Stable over all attempts: hand it to an API that deduplicates."""
        return self._id

    @property
    def dispatched_at(self) -> datetime:
        """When the job was dispatched (aware, UTC)."""
        return from_ms(self.dispatched_ms)

    @property
    def schedule(self) -> str:
        """The schedule that dispatched it; '' where none did."""
        return self._letter.sch

    @property
    def tick(self) -> datetime | None:
        """The time for which its schedule wanted it (aware, UTC), however late it was dispatched. None where no schedule
        dispatched it."""
        return from_ms(self._letter.tick) if self._letter.tick else None

    @property
    def follows(self) -> int:
        """How many jobs it waited for."""
        return self._letter.aft
