"""What only some dispatches ask for, as admit.lua reads it. Members with their default are left out: its JSON has no null."""

from __future__ import annotations

import msgspec


class Unique(msgspec.Struct, omit_defaults=True, frozen=True):
    """A unique lock."""

    k: str
    """Digest."""
    m: str
    """Until when: window, start or done."""
    w: int
    """The window in ms, 0: none."""
    c: str
    """On conflict: return, raise, replace or debounce."""
    x: int = 0
    """debounce: the longest that the first of them waits, in ms."""


class Depends(msgspec.Struct, frozen=True):
    """Waiting for others."""

    p: list[str]
    f: str
    """Where one fails: cancel, run or dead."""


class Slot(msgspec.Struct, frozen=True):
    """A dispatch limit."""

    k: str
    n: int
    p: int
    """ms"""
    o: str
    """Over the limit: delay, raise or drop."""


class Options(msgspec.Struct, omit_defaults=True):
    """See admit.lua."""

    c: str = ""
    """The class's name."""
    l: str = ""  # noqa: E741 (as the script calls it)
    """Links."""
    u: Unique | None = None
    d: Depends | None = None
    b: str = ""
    """Batch."""
    r: Slot | None = None
    n: bool = False
    """Between its parent and those that wait for that."""
    e: bool = False
    """Behind the last step of its chain."""
    k: bool = False
    """Others of its group wait for it, and may be yet to come."""
    m: int = 0
    """For how long its id is remembered, in ms, also when its job is gone: it comes from an outbox."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Options)


def encode(options: Options) -> bytes:
    """Its bytes."""
    return _encoder.encode(options)


def decode(data: bytes) -> Options:
    """Options from their bytes; all defaults where there are none."""
    return _decoder.decode(data) if data else Options()


def remembered(data: bytes, ms: int) -> bytes:
    """The bytes of these options, or of none, with the wish that the id be remembered."""
    options = decode(data)
    options.m = ms
    return encode(options)
