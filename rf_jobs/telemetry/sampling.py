"""Which spans are recorded: forced reasons always, else a share of the traces, up to so many spans a second.

The share is decided by the trace id alone, so that all processes agree on a trace without asking each other.
"""

from __future__ import annotations

from rf_jobs.words.timing import mono

_LOW = (1 << 64) - 1


class Sampling:
    """A ratio and a token bucket. Forced spans take from the bucket too, on credit: they are never refused, and what
    they use up is missing for the others."""

    def __init__(self, ratio: float, per_second: float) -> None:
        self._bound = round(ratio * (1 << 64))
        self._rate = float(per_second)
        self._tokens = self._rate
        self._at = mono()

    def keeps(self, trace_id: int) -> bool:
        """Whether this is one of the traces that are kept."""
        return trace_id & _LOW < self._bound

    def take(self) -> bool:
        """Whether there is room for one more span this second; takes it."""
        self._refill()
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def force(self) -> None:
        """One that is recorded in any case."""
        self._refill()
        self._tokens = max(self._tokens - 1.0, -self._rate)

    def _refill(self) -> None:
        now = mono()
        self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate)
        self._at = now
