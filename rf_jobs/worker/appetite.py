"""How many jobs to hold beyond those that run: none when jobs are slow, many when they are fast."""

from __future__ import annotations

FAST_SECONDS = 0.05
HORIZON_SECONDS = 0.1
MAX_FETCH = 400


class Appetite:
    """Adapts to measured durations and rates.

    A buffered job is one that no other worker can run. So the buffer holds what this worker does in a tenth of a
    second, and nothing at all once a job takes longer than 50 ms on average.

    A job that waits for its crowd takes no slot. So what the last fetch brought of such jobs is asked for again, beyond
    the slots: the more of them there are, the larger the next fetch.
    """

    def __init__(self, slots: int, max_prefetch: int) -> None:
        self._slots = slots
        self._max_prefetch = max_prefetch
        self._duration: float | None = None
        self._rate = 0.0
        self.lent = 0
        """Jobs of the last fetch that wait for their crowds."""

    def ran(self, count: int, seconds_in_handlers: float, elapsed: float) -> None:
        """``count`` attempts ended within ``elapsed`` seconds, having taken so many handler-seconds in all."""
        if count <= 0 or elapsed <= 0:
            return
        duration, rate = seconds_in_handlers / count, count / elapsed
        weight = 0.3
        self._duration = duration if self._duration is None else (1 - weight) * self._duration + weight * duration
        self._rate = rate if not self._rate else (1 - weight) * self._rate + weight * rate

    @property
    def prefetch(self) -> int:
        """How many jobs may be buffered beyond the free slots."""
        if self._duration is None or self._duration > FAST_SECONDS:
            return 0
        return min(self._max_prefetch, int(self._rate * HORIZON_SECONDS))

    def wanted(self, running: int, buffered: int) -> int:
        """How many to ask for now."""
        room = self._slots + self.prefetch - running - buffered
        return min(MAX_FETCH, room + self.lent) if room > 0 else 0
