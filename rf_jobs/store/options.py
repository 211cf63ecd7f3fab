"""What only some dispatches ask for, as admit.lua reads it. Members with their default are left out: its JSON has no null."""

from __future__ import annotations

import msgspec


class Unique(msgspec.Struct, omit_defaults=True, frozen=True):
    """A unique lock."""

    digest: str
    mode: str
    """Until when: window, start or done."""
    window: int
    """In ms, 0: none."""
    conflict: str
    """return, raise, replace or debounce."""
    ceiling: int = 0
    """debounce: the longest that the first of them waits, in ms."""


class Depends(msgspec.Struct):
    """Waiting for others."""

    parents: list[str]
    failure: str
    """Where one fails: cancel, run or dead."""


class Slot(msgspec.Struct, frozen=True):
    """A dispatch limit: so many of this name become due within ``per`` ms."""

    name: str
    limit: int
    per: int
    over: str
    """Over the limit: delay, raise or drop."""


class Options(msgspec.Struct, omit_defaults=True):
    """See admit.lua."""

    job_class: str = ""
    links: str = ""
    """What hangs on the job by what its class says: limits, its turn."""
    unique: Unique | None = None
    depends: Depends | None = None
    batch: str = ""
    """The batch or chain that it is a member of."""
    slot: Slot | None = None
    between: bool = False
    """Between its parent and those that wait for that."""
    behind: bool = False
    """Behind the last step of its chain."""
    awaited: bool = False
    """Others of its group wait for it, and may be yet to come."""
    remember: int = 0
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
    options.remember = ms
    return encode(options)
