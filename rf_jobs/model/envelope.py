"""The wire format, versions 1 and 2: what ``job:<id>`` holds. Documented for other languages in docs/wire-format.md.

JSON, so that any language can enqueue and anyone can read it. Written once, never changed; scripts do not look inside.
Unknown members are ignored, members with their default are left out. A payload that does not lie there as it is, sealed or
offloaded, makes it version 2, so that a worker that knows nothing of that parks the job.
"""

from __future__ import annotations

from typing import Any

import msgspec

from rf_jobs.words.config_secrets import MASK
from rf_jobs.words.errors import SerializationError

WIRE_VERSION = 1
"""Of an envelope with its payload in it as it is."""
CLOSED_VERSION = 2
"""Of one whose payload must be opened, or fetched from elsewhere, first; the latest that this code reads."""

LINKED = "rf=l"
"""In tracestate: what follows from this dispatch is linked to it and never its child (a delay, a batch)."""


class Headers(msgspec.Struct, omit_defaults=True, gc=False):
    """What travels beside the payload, readable without it."""

    tp: str = ""
    """W3C traceparent of the dispatch: the job's creation context, never rewritten."""
    ts: str = ""
    """W3C tracestate."""
    bg: dict[str, str] = {}
    """Baggage: an allow-list of keys."""
    cv: str = ""
    """Conversation: the id that all jobs of one workflow share."""


class Seal(msgspec.Struct, omit_defaults=True, gc=False):
    """What of a payload is sealed."""

    key: str = ""
    """The key's name: ``id#fingerprint``."""
    fields: list[str] = []
    """Names of sealed fields; none: the whole payload is sealed."""


class Claim(msgspec.Struct, gc=False):
    """Where an offloaded payload is, and what it is."""

    ref: str
    """Its name in the payload store."""
    size: int
    """Bytes."""
    sha256: str
    """Of these bytes, in hexadecimal digits."""


class Envelope(msgspec.Struct, omit_defaults=True, gc=False):
    """One job, as it lies in the store."""

    v: int
    id: str
    job: str
    """The class's stable name."""
    queue: str
    at: int
    """When it was dispatched: milliseconds since 1970 by the client's clock."""
    args: msgspec.Raw = msgspec.Raw(b"{}")
    """The payload: a JSON object of the class's fields."""
    ver: int = 1
    """The version of the class that wrote the payload."""
    pri: int = 1
    due: int = 0
    """When it may first run (milliseconds since 1970, client's clock; the store's own due time counts), 0: at once."""
    max: int = 0
    """max_attempts of this dispatch, 0: what the class says."""
    exp: int = 0
    """When it expires unless it has started (milliseconds since 1970, client's clock; the store's own time counts), 0: never."""
    tags: list[str] = []
    hdr: Headers | None = None
    enc: Seal | None = None
    """What of ``args`` is sealed, if anything is."""
    off: Claim | None = None
    """Where ``args`` is, if it is not here."""
    bat: str = ""
    """The batch that it belongs to, itself or by its chain."""
    chn: str = ""
    """The chain that it is a step of."""
    aft: int = 0
    """How many jobs it waited for: their results may lie beside it."""
    sch: str = ""
    """The schedule that dispatched it."""
    tick: int = 0
    """The time for which that wanted it (milliseconds since 1970), 0: no schedule did."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Envelope)
_READABLE = (WIRE_VERSION, CLOSED_VERSION)


class _Version(msgspec.Struct):
    v: int = 0


def encode(envelope: Envelope) -> bytes:
    """The envelope's bytes."""
    return _encoder.encode(envelope)


def decode(data: bytes) -> Envelope:
    """An envelope from its bytes.

    Raises ``SerializationError`` where they are none, or of a later version than this code knows.
    """
    try:
        envelope = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SerializationError(
            f"the envelope is damaged: {error}; its bytes begin with {bytes(data[:60])!r}"
        ) from None
    if envelope.v not in _READABLE:
        raise SerializationError(
            f"the envelope has version {envelope.v}, this worker reads versions up to {CLOSED_VERSION}; upgrade the worker"
        )
    return envelope


def is_newer(data: bytes) -> bool:
    """Whether this is an envelope of a later version: not damage, a newer client's work."""
    try:
        return msgspec.json.decode(data, type=_Version).v > CLOSED_VERSION
    except msgspec.MsgspecError:
        return False


def payload(envelope: Envelope) -> Any:
    """The payload as plain data, for people to read: what is sealed is masked, what is elsewhere is named. Raises
    ``msgspec.DecodeError`` for one that is damaged."""
    seal, claim = envelope.enc, envelope.off
    if seal is not None and not seal.fields:
        return MASK
    if claim is not None:
        return f"(offloaded: {claim.size} bytes in the payload store, {claim.ref})"
    plain = msgspec.json.decode(envelope.args)
    if seal is not None and isinstance(plain, dict):
        return {name: MASK if name in seal.fields else value for name, value in plain.items()}
    return plain


def readable(data: bytes | None) -> Envelope | None:
    """The envelope, None where there is none or nobody can read it."""
    if not data:
        return None
    try:
        return decode(data)
    except SerializationError:
        return None
