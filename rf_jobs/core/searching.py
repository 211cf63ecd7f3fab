"""Looking for jobs: by class, tag, text, in a bounded walk over queues and states. Reads only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from rf_jobs.core.inspector import PAGE, Inspector
from rf_jobs.core.records import JobRecord
from rf_jobs.model import envelope
from rf_jobs.model.envelope import Envelope
from rf_jobs.store.redis import AsyncStore
from rf_jobs.words.states import State


@dataclass(frozen=True)
class Wanted:
    """What is looked for. All that is given must hold."""

    queue: str | None = None
    states: tuple[State, ...] = tuple(State)
    job_class: str | None = None
    """The class's name, or its last part."""
    tag: str | None = None
    text: str | None = None
    """Part of the id, of the payload as it lies there (what is sealed is not read), or of the last error."""

    def fits(self, letter: Envelope | None) -> bool:
        """By what the envelope says; the text may still be in the error."""
        if letter is None:
            return self.job_class is None and self.tag is None
        name = letter.job
        return (self.job_class is None or self.job_class in (name, name.rpartition(":")[2])) and (
            self.tag is None or self.tag in letter.tags
        )

    def says(self, record: JobRecord, letter: Envelope | None) -> bool:
        """Whether the text is in it."""
        if self.text is None:
            return True
        last = record.last_error
        places = [str(record.id), f"{last.type}: {last.message}" if last is not None else ""]
        if letter is not None and letter.off is None and (letter.enc is None or letter.enc.fields):
            places.append(bytes(letter.args).decode("utf-8", "replace"))
        return any(self.text in place for place in places)


@dataclass(frozen=True)
class SearchResult:
    """What a search found."""

    jobs: list[JobRecord]
    scanned: int
    """Jobs that were looked at."""
    complete: bool
    """Whether all were looked at that could be meant; False where the limit or the bound came first."""


class Searcher:
    """Searches one store."""

    def __init__(self, store: AsyncStore, inspector: Inspector) -> None:
        self._store = store
        self._inspector = inspector

    async def search(self, wanted: Wanted, limit: int, scan: int) -> SearchResult:
        """The first ``limit`` jobs that fit, looking at no more than about ``scan``. Raises ``BackendError``."""
        found: list[JobRecord] = []
        scanned = 0
        async for queue, ids in self._pages(wanted):
            if scanned >= scan:
                return SearchResult(found, scanned, complete=False)
            scanned += len(ids)
            data = await self._store.run(self._store.commands.envelopes(ids))
            letters = {job_id: envelope.readable(each) for job_id, each in zip(ids, data, strict=True) if each}
            fitting = [job_id for job_id, letter in letters.items() if wanted.fits(letter)]
            for record in await self._inspector.records(fitting, queue):
                if wanted.says(record, letters[str(record.id)]):
                    found.append(record)
                    if len(found) >= limit:
                        return SearchResult(found, scanned, complete=False)
        return SearchResult(found, scanned, complete=True)

    async def _pages(self, wanted: Wanted) -> AsyncIterator[tuple[str, Sequence[str]]]:
        queues = [wanted.queue] if wanted.queue else await self._inspector.queue_names()
        for queue in queues:
            for state in wanted.states:
                start = 0
                while ids := await self._inspector.ids(state, queue, start, PAGE, newest_first=state.is_final):
                    yield queue, ids
                    start += len(ids)
                    if len(ids) < PAGE:
                        break
