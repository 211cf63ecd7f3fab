"""Job ids (UUID version 7, RFC 9562) and the names that may become part of a key."""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
from uuid import UUID

from rf_jobs.words.errors import InvalidOption

_NAME = re.compile(r"[A-Za-z0-9_.\-/@+]{1,128}\Z")
_NAMESPACE = re.compile(r"[A-Za-z0-9_.\-/]{1,64}\Z")
_last = [0, 0]
_generator = random.Random(os.urandom(32))  # noqa: S311 (ids have to be unique, not secret)
_bits = _generator.getrandbits
if hasattr(os, "register_at_fork"):
    # A forked child would draw the same numbers as its parent.
    os.register_at_fork(after_in_child=lambda: _generator.seed(os.urandom(32)))


def new_id() -> UUID:
    """A fresh UUIDv7: 48 bits of milliseconds, a 12-bit counter for order within one of them, 62 random bits."""
    ms = time.time_ns() // 1_000_000
    if ms > _last[0]:
        _last[0] = ms
        _last[1] = 0
    else:
        # Within one millisecond, or with a clock that stepped back, count on: ids made here only ever grow.
        ms = _last[0]
        _last[1] += 1
        if _last[1] > 0xFFF:
            ms = _last[0] = ms + 1
            _last[1] = 0
    return UUID(int=(ms << 80) | (0x7 << 76) | (_last[1] << 64) | (0b10 << 62) | _bits(62))


def member_id(group: UUID, number: int) -> UUID:
    """The id of a group's member: the same whenever that group is dispatched, so that none is doubled."""
    digest = hashlib.sha256(group.bytes + number.to_bytes(8, "big")).digest()
    random_bits = int.from_bytes(digest[:8], "big") >> 2
    return UUID(int=(group.int >> 80 << 80) | (0x7 << 76) | ((number & 0xFFF) << 64) | (0b10 << 62) | random_bits)


def job_id(value: UUID | str) -> UUID:
    """``value`` as a job id; raises ``InvalidOption`` where it is none."""
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except (ValueError, AttributeError, TypeError):
        raise InvalidOption(f"job id is {value!r}; give a UUID, such as the one that dispatch returned") from None


def queue_name(value: object) -> str:
    """``value`` as a queue's name; raises ``InvalidOption`` where it could not safely stand in a key."""
    if isinstance(value, str) and _NAME.match(value):
        return value
    raise InvalidOption(
        f"queue name is {value!r}; use 1 to 128 of the letters A-Z a-z, digits, and _ . - / @ + (no spaces, colons or braces)"
    )


def schedule_name(value: object) -> str:
    """``value`` as a schedule's name; raises ``InvalidOption`` where it could not safely stand in a key."""
    if isinstance(value, str) and _NAME.match(value):
        return value
    raise InvalidOption(
        f"schedule name is {value!r}; use 1 to 128 of the letters A-Z a-z, digits, and _ . - / @ + (no spaces, colons or braces)"
    )


def is_namespace(value: str) -> bool:
    """Whether it may stand before every key."""
    return _NAMESPACE.match(value) is not None


def new_token(size: int = 8) -> str:
    """A random hex string for a process that must be told from all others."""
    return os.urandom(size).hex()
