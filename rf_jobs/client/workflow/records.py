"""What is known of batches and chains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from rf_jobs.core.records import moment
from rf_jobs.store.keys import plain


@dataclass(frozen=True)
class BatchProgress:
    """How far a batch is. A group that is a member counts as one."""

    total: int
    pending: int
    failed: int
    """Died, cancelled or expired."""

    @property
    def processed(self) -> int:
        """How many have ended."""
        return self.total - self.pending

    @property
    def completed(self) -> int:
        """How many have completed."""
        return self.processed - self.failed

    @property
    def percentage(self) -> float:
        """0 to 100."""
        return 100.0 * self.processed / self.total if self.total else 100.0


@dataclass(frozen=True)
class BatchRecord:
    """All that is known of a batch, or of a chain."""

    id: UUID
    kind: str
    """batch or chain"""
    name: str
    state: str
    """running, completed, failed or cancelled"""
    progress: BatchProgress
    created_at: datetime | None
    finished_at: datetime | None
    outer: UUID | None
    """The group that it is a member of."""
    first_failed: str
    """Id of the member that failed first."""
    reason: str
    """Why what waited was cancelled."""
    fired: tuple[str, ...]
    """Which callbacks were dispatched: then, catch, finally."""
    abandoned: bool
    """Whether whoever dispatched it did not come to an end with that."""


def record_of(batch: str, fields: Mapping[str, str], pending: int, failed: int) -> BatchRecord:
    """Made of what lies in the store."""
    outer = next((word[1:] for word in fields.get("links", "").split() if word.startswith("b")), "")
    return BatchRecord(
        id=UUID(batch),
        kind=fields.get("kind", "batch"),
        name=fields.get("name", ""),
        state=fields.get("state", ""),
        progress=BatchProgress(int(fields.get("total", "0")), pending, failed),
        created_at=moment(fields.get("created")),
        finished_at=moment(fields.get("finished")),
        outer=UUID(plain(outer)) if outer else None,
        first_failed=fields.get("first_failed", ""),
        reason=fields.get("cancelled", ""),
        fired=tuple(event for event in ("then", "catch", "finally") if f"fired:{event}" in fields),
        abandoned="abandoned" in fields,
    )
