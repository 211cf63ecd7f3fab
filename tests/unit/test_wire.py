"""The wire format: files that every later version must read, and whatever bytes may stand in a store."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rf_jobs import Job, JobContext
from rf_jobs.model import envelope as wire
from rf_jobs.model.codec import decode_payload, decode_value, encode_payload, encode_value
from rf_jobs.model.envelope import Envelope, Headers
from rf_jobs.words.errors import SerializationError

GOLDEN = Path(__file__).parents[1] / "golden"
ID = "01936f4e-5c7a-7b3e-9d2f-0a1b2c3d4e5f"


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.json").read_bytes().strip()


def test_the_smallest_envelope() -> None:
    letter = wire.decode(golden("smallest"))
    assert (letter.id, letter.job, letter.queue, letter.at) == (ID, "shop.mail:Welcome", "emails", 1732406400000)
    assert (letter.ver, letter.pri, letter.due, letter.max, letter.exp, letter.tags, letter.hdr) == (
        1,
        1,
        0,
        0,
        0,
        [],
        None,
    )
    assert wire.payload(letter) == {"to": "ada@example.org"}
    assert wire.encode(letter) == golden("smallest"), "what was written before is no longer written the same way"


def test_every_member() -> None:
    letter = wire.decode(golden("every_member"))
    assert (letter.ver, letter.pri, letter.due, letter.max, letter.exp) == (7, 3, 1732406460000, 9, 1732410000000)
    assert letter.tags == ["tenant:4", "vip"]
    assert letter.hdr == Headers(
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "vendor=1",
        {"tenant": "4"},
        "01936f4e-5c7a-7b3e-9d2f-0a1b2c3d4e60",
    )
    assert wire.payload(letter)["deep"] == [{"a": [1, 2.5, "\u00fc"]}]
    assert json.loads(wire.encode(letter)) == json.loads(golden("every_member"))


def test_unknown_members_are_ignored() -> None:
    letter = wire.decode(golden("unknown_members"))
    assert wire.payload(letter) == {}
    assert letter.hdr == Headers()


def test_a_later_version_is_not_damage() -> None:
    assert wire.is_newer(golden("newer"))
    assert not wire.is_newer(golden("smallest"))
    assert not wire.is_newer(b"\xff")


@given(st.binary() | st.text().map(str.encode) | st.integers(0, 400).map(lambda n: golden("every_member")[:n]))
def test_any_bytes_are_an_envelope_or_a_clear_error(data: bytes) -> None:
    try:
        letter = wire.decode(data)
    except SerializationError as error:
        assert "envelope" in str(error)
    else:
        assert wire.decode(wire.encode(letter)) == letter


def test_nesting_without_end_is_a_clear_error() -> None:
    deep = golden("smallest").replace(b'{"to":"ada@example.org"}', b"[" * 100_000 + b"]" * 100_000)
    with pytest.raises(SerializationError):
        wire.payload(wire.decode(deep))


names = st.text(min_size=1, max_size=20)
whole = st.integers(0, 2**53)


@given(
    st.builds(
        Envelope,
        v=st.just(1),
        id=names,
        job=names,
        queue=names,
        at=whole,
        args=st.dictionaries(names, names).map(lambda d: msgspec.Raw(msgspec.json.encode(d))),
        ver=whole,
        pri=st.integers(0, 3),
        due=whole,
        max=whole,
        exp=whole,
        tags=st.lists(names),
        hdr=st.none() | st.builds(Headers, names, names, st.dictionaries(names, names), names),
    )
)
def test_what_is_written_is_read(letter: Envelope) -> None:
    data = wire.encode(letter)
    again = wire.decode(data)
    assert wire.encode(again) == data
    assert wire.payload(again) == wire.payload(letter)


class Kinds(Job):
    text: str
    number: int
    amount: Decimal
    when: datetime
    day: date
    span: timedelta
    who: UUID
    raw: bytes
    several: tuple[int, ...]
    by_name: dict[str, list[float]]
    maybe: int | None = None

    async def handle(self, ctx: JobContext) -> None: ...


@given(
    st.builds(
        Kinds,
        text=st.text(),
        number=st.integers(-(2**63), 2**63 - 1),
        amount=st.decimals(allow_nan=False, allow_infinity=False),
        when=st.datetimes(timezones=st.just(UTC)),
        day=st.dates(),
        span=st.integers(0, 10**9).map(lambda s: timedelta(seconds=s)),
        who=st.uuids(),
        raw=st.binary(),
        several=st.lists(st.integers(-(2**63), 2**63 - 1)).map(tuple),
        by_name=st.dictionaries(st.text(), st.lists(st.floats(allow_nan=False, allow_infinity=False))),
        maybe=st.none() | st.integers(0, 9),
    )
)
def test_a_payload_of_every_kind(job: Kinds) -> None:
    entry = Kinds.__job_class__
    assert decode_payload(entry, encode_payload(job, entry), 1) == job


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.text(), s),
    )
)
def test_a_result_comes_back_as_it_was(value: object) -> None:
    assert decode_value(encode_value(value, "the result")) == value


def test_a_result_that_json_cannot_say() -> None:
    with pytest.raises(SerializationError, match="the result"):
        encode_value(object(), "the result")
