"""Watching a job live: announcements say that something has changed, the store says what.

So nothing is missed when the connection is lost, and a reader who is slower than the job gets the newest of everything.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from rf_jobs.client.ear import Box, Ear
from rf_jobs.core.inspector import Inspector
from rf_jobs.core.revealing import revealed_lines
from rf_jobs.core.updates import Follower, JobUpdate, Look, StateChanged
from rf_jobs.store.calls import Call
from rf_jobs.store.keys import LIVE_CHANNEL
from rf_jobs.store.redis import AsyncStore
from rf_jobs.words.errors import JobNotFound
from rf_jobs.words.states import FINAL

LOOK_UP_SECONDS = 5.0
"""Between two looks while nothing is heard."""
LIVE_MS = 30_000
"""For so long after a look the changes of a job are announced."""
LINES, ERRORS = 500, 10
"""Of one look."""
PLAIN = frozenset({"progress", "log"})
"""Announcements after which the error history need not be looked at."""


class Watcher:
    """Follows jobs for one manager, however many, over one connection."""

    def __init__(self, store: AsyncStore, inspector: Inspector) -> None:
        self._store = store
        self._inspector = inspector
        self._ear = Ear(store, LIVE_CHANNEL)

    async def watch(self, job_id: str) -> AsyncGenerator[JobUpdate]:
        """All that is kept, then what changes, until the job is over. Raises ``JobNotFound``, and ``BackendError`` where
        the server is away for longer than calls are sent again."""
        follower = Follower((await self._inspector.job(job_id)).state)
        async with self._ear.listen(job_id) as box:
            heard: set[str] = {""}
            while True:
                look = await self._look(job_id, follower.line, errors=not heard or not heard <= PLAIN)
                if look is None:
                    yield _removed(job_id, box)
                    return
                for update in follower.news(look):
                    yield update
                if len(look.lines) == LINES:
                    continue
                if follower.is_over:
                    return
                heard = await box.take(LOOK_UP_SECONDS)

    async def _look(self, job_id: str, line: int, *, errors: bool) -> Look | None:
        """None where the job is not there any more. What is read after a final state is all there will ever be."""
        commands = self._store.commands
        calls: list[Call[Any]] = [
            commands.watch(job_id, LIVE_MS),
            commands.meta(job_id),
            commands.kept("progress", job_id),
            commands.joblog(job_id, line, LINES),
            *([commands.last_lines("errors", job_id, ERRORS)] if errors else []),
        ]
        state, meta, progress, (first, lines), *rest = await self._store.run_many(calls)
        if state == "?":
            return None
        inspector = self._inspector
        return Look(
            meta, inspector.shown("progress", job_id, progress), rest[0] if rest else None, first,
            revealed_lines(inspector.keyring, job_id, lines),
        )  # fmt: skip

    async def aclose(self) -> None:
        """Stop listening."""
        await self._ear.aclose()


def _removed(job_id: str, box: Box) -> StateChanged:
    """The last word about a job whose record is gone."""
    said = box.last.split()
    if said and said[0] in FINAL:
        return StateChanged(said[0], 0)
    raise JobNotFound(f"job {job_id} was removed while it was watched: retention, clear or forget took it")
