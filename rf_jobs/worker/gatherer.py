"""Batch consumers' attempts wait here for company, in no slot; together they take one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from rf_jobs.model.jobclass import JobClass
from rf_jobs.words.options import Many
from rf_jobs.words.timing import mono
from rf_jobs.worker.attempt import Attempt, Crowd


class Gatherer:
    """Crowds that grow, and those that are complete and wait for a slot. ``news`` is called when there is one more of
    these. Keeps no task: one timer for each crowd, from its first member on."""

    def __init__(self, news: Callable[[], None]) -> None:
        self._news = news
        self._growing: dict[JobClass, Crowd] = {}
        self.ripe: deque[Crowd] = deque()

    def add(self, attempt: Attempt, entry: JobClass, many: Many) -> None:
        """Let an attempt wait with others of its class, until there are enough or the first has waited long enough."""
        crowd = self._growing.get(entry)
        if crowd is None:
            crowd = self._growing[entry] = Crowd(attempt)
            crowd.timer = asyncio.get_running_loop().call_later(many.wait, self._ripen, entry)
        else:
            crowd.join(attempt)
        if len(crowd.members) >= many.size:
            self._ripen(entry)

    def _ripen(self, entry: JobClass) -> None:
        crowd = self._growing.pop(entry)
        if crowd.timer is not None:
            crowd.timer.cancel()
        crowd.ripe_since = mono()
        self.ripe.append(crowd)
        self._news()

    def __len__(self) -> int:
        """Attempts that wait here."""
        return sum(len(crowd.members) for crowd in (*self._growing.values(), *self.ripe))

    def take_all(self) -> list[Attempt]:
        """All that wait, to be handed back."""
        for crowd in self._growing.values():
            if crowd.timer is not None:
                crowd.timer.cancel()
        members = [member for crowd in self._growing.values() for member in crowd.members]
        self._growing.clear()
        return self.take_ripe() + members

    def take_ripe(self) -> list[Attempt]:
        """Those that wait for a slot."""
        members = [member for crowd in self.ripe for member in crowd.members]
        self.ripe.clear()
        return members
