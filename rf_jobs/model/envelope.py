"""The wire format, version 1: what ``job:<id>`` holds. Documented for other languages in docs/wire-format.md.

JSON, so that any language can enqueue and anyone can read it. Written once, never changed; scripts do not look inside.
Unknown members are ignored, members with their default are left out.
"""

from __future__ import annotations

from typing import Any

import msgspec

from rf_jobs.words.errors import SerializationError

WIRE_VERSION = 1


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


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Envelope)


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
    if envelope.v != WIRE_VERSION:
        raise SerializationError(
            f"the envelope has version {envelope.v}, this worker reads version {WIRE_VERSION}; upgrade the worker"
        )
    return envelope


def is_newer(data: bytes) -> bool:
    """Whether this is an envelope of a later version: not damage, a newer client's work."""
    try:
        return msgspec.json.decode(data, type=_Version).v > WIRE_VERSION
    except msgspec.MsgspecError:
        return False


def payload(envelope: Envelope) -> Any:
    """The payload as plain data, for people to read."""
    return msgspec.json.decode(envelope.args)


def readable(data: bytes | None) -> Envelope | None:
    """The envelope, None where there is none or nobody can read it."""
    if not data:
        return None
    try:
        return decode(data)
    except SerializationError:
        return None
