"""Whatever bytes lie in the store, they make a record that can be shown."""

from __future__ import annotations

import json
from datetime import UTC, timedelta, timezone
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from rf_jobs.cli import shapes
from rf_jobs.core.records import Place, Stored, build_record
from rf_jobs.model import envelope
from rf_jobs.model.envelope import Envelope, Headers

numbers = st.integers(-(2**63), 2**63 - 1)
texts = st.text(max_size=20)
plain = st.recursive(
    st.none() | st.booleans() | numbers | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def json_of(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "replace")


lines = st.lists(st.binary(max_size=60) | plain.map(json_of) | st.builds(
    lambda at, started, attempt: json_of({"at": at, "started": started, "attempt": attempt}), plain, plain, plain,
), max_size=4)  # fmt: skip
moments = st.lists(st.binary(max_size=40) | st.builds(lambda n, t: f"{n} {t} x".encode(), numbers, texts), max_size=4)
metas = st.dictionaries(
    st.sampled_from(["state", "attempt", "crashes", "epoch", "finished", "priority", "token", "reason", "cancel"]),
    texts | numbers.map(str) | st.floats().map(str),
)
letters = st.none() | st.builds(
    lambda at, due, exp, pri, most, tp: Envelope(
        1, "x", "m:C", "q", at, pri=pri, due=due, max=most, exp=exp, hdr=Headers(tp=tp)
    ),
    numbers, numbers, numbers, numbers, numbers, texts,
)  # fmt: skip
data = st.none() | st.binary(max_size=40) | plain.map(json_of)


@given(letters, metas, lines, moments, data, data, st.none() | st.floats(), texts)
def test_anything_makes_a_record(
    letter: Envelope | None,
    meta: dict[str, str],
    errors: list[bytes],
    timeline: list[bytes],
    progress: bytes | None,
    result: bytes | None,
    due: float | None,
    state: str,
) -> None:
    stored = Stored(UUID(int=7), b"", meta, errors, timeline, progress, result)
    record = build_record(stored, letter, Place("q", state, due))
    assert len(record.errors) == len(errors)
    assert record.has_result == (result is not None)
    shapes.job(record, payload=True, whole=True)
    for zone in (UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))):
        for moment in record.timeline:
            moment.at.astimezone(zone)
    if letter is not None:
        assert envelope.readable(envelope.encode(letter)) == letter
