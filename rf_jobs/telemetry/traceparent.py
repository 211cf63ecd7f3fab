"""W3C traceparents by hand: the API's propagator costs four times as much, and a job has one at each end.

Also where an attempt's ids come from: they follow from its job and its lease, so that whoever takes a lost job back can
name the span of the attempt that was lost, though nothing was written down while it lived.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import NamedTuple

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_SAMPLED = tuple("13579bdf")

MAX_STATE = 512


class Traceparent(NamedTuple):
    """A span's address."""

    trace_id: int
    span_id: int
    flags: int

    @property
    def sampled(self) -> bool:
        """Whether the span is recorded."""
        return bool(self.flags & 1)


def parse(text: str) -> Traceparent | None:
    """What a traceparent says; None where it is none."""
    found = _FORM.match(text)
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    if not trace_id or not span_id:
        return None
    return Traceparent(trace_id, span_id, int(found[4], 16))


def text_of(trace_id: int, span_id: int, flags: int) -> str:
    """A traceparent."""
    return f"00-{trace_id:032x}-{span_id:016x}-{flags & 0xFF:02x}"


def is_sampled(text: str) -> bool:
    """Whether a traceparent of ours is there and its span is recorded."""
    return text.endswith(_SAMPLED)


def attempt_ids(job_id: str, token: str) -> str:
    """Ids of an attempt: 32 hex digits of the trace, should it be a trace of its own, and 16 of the span."""
    digest = blake2b(f"{job_id} {token}".encode(), digest_size=24).hexdigest()
    # Never all zeros, which would mean no id at all.
    return digest if digest[:32].strip("0") and digest[32:].strip("0") else digest.replace("0", "1")
