"""The fast lane: spans of attempts that went well, written straight as OTLP protobuf.

An SDK span costs about 110 us to make and encode, this about 5. It is taken only where the tracer provider is ours and all
its spans go to the collector anyway; an application's own provider may have processors that want to see each span, and gets
SDK spans. Field numbers are those of opentelemetry/proto/trace/v1/trace.proto.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from struct import Struct

from opentelemetry.context import attach, set_value

from rf_jobs.telemetry.posting import Poster

BATCH_BYTES = 128 << 10
"""When so much waits it is sent, without waiting for the next time."""
MAX_BYTES = 8 << 20
_HEAD = Struct(">BB16sBB8s")  # trace_id = 1, span_id = 2
_TIMES = Struct("<BQBQ")  # start = 7, end = 8, both fixed64
# flags = 16, fixed32: sampled, and whether the parent is in another process, which is known.
_CHILD_FLAGS, _ROOT_FLAGS = b"\x85\x01\x01\x03\x00\x00", b"\x85\x01\x01\x01\x00\x00"


def varint(number: int) -> bytes:
    """A protobuf varint; negative numbers take ten bytes."""
    if 0 <= number < len(_SHORT):
        return _SHORT[number]
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_SHORT: list[bytes] = []
_SHORT.extend([varint(number) for number in range(1 << 12)])  # lengths of nearly everything


def delimited(field: int, data: bytes) -> bytes:
    """A length-delimited field."""
    return varint(field << 3 | 2) + varint(len(data)) + data


def attribute(key: str, value: str | float | bool) -> bytes:
    """An attribute of a span: field 9, a KeyValue."""
    return delimited(9, _key_value(key, value))


def _key_value(key: str, value: str | float | bool) -> bytes:
    if isinstance(value, bool):
        held = b"\x10" + varint(int(value))
    elif isinstance(value, int):
        held = b"\x18" + varint(value)
    elif isinstance(value, float):
        held = b"\x21" + Struct("<d").pack(value)
    else:
        held = delimited(1, value.encode())
    return delimited(1, key.encode()) + delimited(2, held)


def event(name: str, at_ns: int) -> bytes:
    """An event of a span: field 11."""
    return delimited(11, b"\x09" + at_ns.to_bytes(8, "little") + delimited(2, name.encode()))


def link(trace_id: int, span_id: int, attributes: Mapping[str, str], *, sampled: bool) -> bytes:
    """A link of a span: field 13."""
    facts = b"".join(delimited(4, _key_value(key, value)) for key, value in attributes.items())
    ids = delimited(1, trace_id.to_bytes(16, "big")) + delimited(2, span_id.to_bytes(8, "big"))
    # flags = 6, fixed32: sampled or not; from another process, which is known.
    return delimited(13, ids + facts + (b"\x35\x01\x03\x00\x00" if sampled else b"\x35\x00\x03\x00\x00"))


def span(
    ids: tuple[int, int], parent: int, name: bytes, start_ns: int, end_ns: int, rest: Sequence[bytes], state: str = ""
) -> bytes:
    """A CONSUMER span of a ``ScopeSpans``: field 2. ``name``: from ``named``; ``rest``: its encoded attributes, events and
    links."""
    parts = [
        _HEAD.pack(0x0A, 16, ids[0].to_bytes(16, "big"), 0x12, 8, ids[1].to_bytes(8, "big")),
        delimited(3, state.encode()) if state else b"",
        b"\x22\x08" + parent.to_bytes(8, "big") if parent else b"",  # parent_span_id = 4
        name,
        _TIMES.pack(0x39, start_ns, 0x41, end_ns),
        *rest,
        _CHILD_FLAGS if parent else _ROOT_FLAGS,
    ]
    body = b"".join(parts)
    return b"\x12" + varint(len(body)) + body


def named(name: str) -> bytes:
    """A CONSUMER span's name and kind: fields 5 and 6."""
    return delimited(5, name.encode()) + b"\x30\x05"


def cut(encoded: bytes, *marks: bytes) -> list[bytes]:
    """What stands around ``marks`` in an encoded message, so that others of the same length can be put in their place."""
    parts = []
    for mark in marks:
        head, found, encoded = encoded.partition(mark)
        if not found:
            raise ValueError(f"{mark!r} does not stand in the message")
        parts.append(head)
    return [*parts, encoded]


class Lane:
    """Collects encoded spans and posts them from a thread, every ``every`` seconds and at ``close``. Bounded: what does
    not fit, or is refused, is dropped and counted by ``told`` (state, how many)."""

    def __init__(
        self, poster: Poster, resource: Mapping[str, str], scope: tuple[str, str, str], *, every: float,
        told: Callable[[str, int], None],
    ) -> None:  # fmt: skip
        self._poster = poster
        self._resource = delimited(1, b"".join(delimited(1, _key_value(k, v)) for k, v in resource.items()))
        name, version, self._schema = scope
        self._scope = delimited(1, delimited(1, name.encode()) + delimited(2, version.encode()))
        self._every = every
        self._told = told
        # One growing buffer: thousands of small objects between longer-lived ones would leave the heap full of holes.
        self._waiting = bytearray()
        self._count = 0
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rf-jobs-lane", daemon=True)
        self._thread.start()

    def add(self, encoded: bytes) -> None:
        """Hand over one span."""
        with self._lock:
            before = len(self._waiting)
            fits = before + len(encoded) <= MAX_BYTES
            if fits:
                self._waiting += encoded
                self._count += 1
        if not fits:
            self._told("dropped", 1)
        elif before < BATCH_BYTES <= before + len(encoded):
            self._wake.set()

    def _run(self) -> None:
        attach(set_value("suppress_instrumentation", True))
        while not self._end.is_set():
            self._wake.wait(self._every)
            self._wake.clear()
            self._flush()

    def _flush(self) -> None:
        while self._count:
            with self._lock:
                spans, count = self._waiting, self._count
                self._waiting, self._count = bytearray(), 0
            sent = self._poster.post(self._request(spans))
            self._told("exported" if sent else "failed", count)

    def _request(self, spans: bytearray) -> bytes:
        """The whole message, put together in one go: it may be large."""
        schema = delimited(3, self._schema.encode())
        scope_size = len(self._scope) + len(spans) + len(schema)
        scope_head = varint(2 << 3 | 2) + varint(scope_size)
        head = varint(1 << 3 | 2) + varint(len(self._resource) + len(scope_head) + scope_size)
        return b"".join((head, self._resource, scope_head, self._scope, spans, schema))

    def close(self, patience: float) -> None:
        """Send what is left, for at most ``patience`` seconds."""
        self._end.set()
        self._wake.set()
        self._poster.close()
        self._thread.join(patience)
