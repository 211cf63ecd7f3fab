"""A rolling restart: every place gets a process with the code that is on the disk now, one place after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from rf_jobs.worker.member import Member, Place

log = logging.getLogger("rf_jobs.supervisor")
MAX_FAILURES = 3
"""So many processes of a new generation that cannot start, and the old ones are left as they are."""


class Rollout:
    """Begins with ``begin``, goes on with each ``step``, and ends when no process of an older generation serves, or when new
    ones cannot start. A process is asked to leave when another is ready in its place, not before, so that there are always
    as many slots as there were."""

    def __init__(self, places: Sequence[Place], relieve: Callable[[Member, str], None]) -> None:
        self._places = places
        self._relieve = relieve
        self.generation = 0
        """Of the processes that are started now."""
        self._failures = 0
        self.under_way = False

    def begin(self) -> None:
        """Replace all that are there. One that is under way goes on with this."""
        self.generation += 1
        self._failures = 0
        self.under_way = True
        log.info("rolling restart %d: %d worker processes, one after the other", self.generation, len(self._old()))

    def _old(self) -> list[Member]:
        members = [place.current for place in self._places]
        return [each for each in members if each is not None and each.generation < self.generation]

    def step(self, now: float) -> None:
        """Start the next successor, if it is time."""
        if not self.under_way:
            return
        old = self._old()
        if not old:
            self.under_way = False
            log.info("rolling restart %d is done", self.generation)
            return
        if any(place.successor for place in self._places):
            return  # one at a time
        for member in old:
            if member.place.predecessor is None and now >= member.place.start_at:
                self._relieve(member, "rolling restart")
                return

    def failed(self, why: str) -> None:
        """A process of this generation could not start."""
        if not self.under_way:
            return
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            self.under_way = False
            log.error(
                "rolling restart %d is given up after %d processes that did not start (the last %s): %d go on with the code"
                " that they have", self.generation, self._failures, why, len(self._old()),
            )  # fmt: skip

    def give_up(self) -> None:
        """There is something else to do: the supervisor stops."""
        self.under_way = False
