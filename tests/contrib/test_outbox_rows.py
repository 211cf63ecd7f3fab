"""A dispatch as a row and back."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rf_jobs import SerializationError
from rf_jobs.client.outbox import Waiting, from_row, to_row
from rf_jobs.core.transitions import Dispatching
from rf_jobs.model.events import JobDispatched
from rf_jobs.store.shapes import Draft

SEVEN = UUID(int=7)
ages = st.integers(0, 10**10)
delays = st.none() | st.integers(0, 10**10)


def item(when: str, *, options: bytes = b"", data: bytes = b"{}", job_id: UUID = SEVEN) -> Dispatching:
    event = JobDispatched(str(job_id), "q", "shop:Job", "ready", 0, 2, "00-1-2-01")
    return Dispatching(job_id, Draft(str(job_id), "q", 2, when, data, options), event)


def through(one: Dispatching, age_ms: int = 0) -> Dispatching:
    return from_row(Waiting(1, to_row(one).draft, age_ms), 1_000)


@given(st.uuids(), st.binary(), st.sampled_from(["", "5", "5!7", "!7"]))
def test_what_is_written_is_read(job_id: UUID, data: bytes, when: str) -> None:
    one = item(when, data=data, job_id=job_id)
    row = to_row(one)
    assert (row.id, row.queue, row.job_class) == (str(job_id), "q", "shop:Job")
    back = through(one)
    assert (back.id, back.draft.id, back.draft.data, back.draft.when) == (job_id, str(job_id), data, when)
    assert (back.draft.queue, back.draft.priority) == ("q", 2)
    event = back.event
    assert (event.job_id, event.queue, event.job_class, event.priority, event.traceparent) == (
        str(job_id), "q", "shop:Job", 2, "00-1-2-01",
    )  # fmt: skip


@given(delays, delays, ages)
def test_delays_and_expiries_count_from_the_writing(delay: int | None, expires: int | None, age: int) -> None:
    when = ("" if delay is None else f"+{delay}") + ("" if expires is None else f"!{expires}")
    back = through(item(when), age)
    due, limited, valid = back.draft.when.partition("!")
    left = 0 if delay is None else max(0, delay - age)
    assert (int(due) if due else 0) == left
    assert back.event.delay_ms == left
    assert back.event.state == ("scheduled" if left else "ready")
    assert bool(limited) is (expires is not None)
    if expires is not None:
        assert int(valid) == max(0, expires - age)


@pytest.mark.parametrize(
    "options",
    [
        b"",
        b'{"job_class":"shop:Job","links":" u1","unique":{"digest":"1","mode":"done","window":0,"conflict":"return"}}',
    ],
)
def test_its_id_is_to_be_remembered_beside_what_was_asked(options: bytes) -> None:
    asked = json.loads(options or b"{}")
    assert json.loads(through(item("", options=options)).draft.options) == {**asked, "remember": 1_000}


@given(st.binary())
def test_damaged_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SerializationError, match="its bytes are not those of a dispatch"):
        from_row(Waiting(1, data, 0), 1_000)


@pytest.mark.parametrize("one", [item("soon"), item("+5", options=b"{"), item("5!x")])
def test_what_makes_no_sense_is_refused(one: Dispatching) -> None:
    with pytest.raises(SerializationError, match="its bytes are not those of a dispatch"):
        through(one)


@given(st.integers(0))
def test_a_row_that_was_cut_off_is_refused(cut: int) -> None:
    data = to_row(item("")).draft
    with pytest.raises(SerializationError):
        from_row(Waiting(1, data[: cut % len(data)], 0), 1_000)
