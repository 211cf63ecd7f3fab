"""Ids, names and backoff policies."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rf_jobs import Exponential, Fixed, Linear
from rf_jobs.words.backoff import delay_seconds
from rf_jobs.words.errors import InvalidOption
from rf_jobs.words.ids import job_id, new_id, queue_name
from tests.support.processes import in_fresh_interpreter

SAFE = "ABCXYZabcxyz0189_.-/@+"


def test_ids_grow_and_differ() -> None:
    made = [new_id() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {(one.version, one.variant) for one in made} == {(7, UUID(int=2**63).variant)}


FORKED = """if True:
    import os
    from rf_jobs.words.ids import new_id
    new_id()
    child = os.fork()
    os.write(1, b"".join(b"%s " % str(new_id()).encode() for _ in range(100)))
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_forked_child_draws_other_ids() -> None:
    drawn = [UUID(text).int & (2**62 - 1) for text in in_fresh_interpreter(FORKED).split()]
    assert len(drawn) == 200
    assert len(set(drawn)) == 200, "parent and child drew the same random bits"


@given(st.text(SAFE, min_size=1, max_size=128))
def test_a_safe_name_is_kept(name: str) -> None:
    assert queue_name(name) == name


@given(st.text(max_size=200) | st.integers() | st.none() | st.binary())
def test_no_other_name_becomes_part_of_a_key(name: object) -> None:
    try:
        kept = queue_name(name)
    except InvalidOption as error:
        assert repr(name) in str(error)
    else:
        assert not set("{}:* \n\r\0|") & set(kept)
        assert 1 <= len(kept) <= 128


@pytest.mark.parametrize("value", ["", "x", 7, None, b"0" * 16, "01936f4e-5c7a-7b3e-9d2f-0a1b2c3d4e5"])
def test_what_is_no_job_id(value: object) -> None:
    with pytest.raises(InvalidOption, match="job id is"):
        job_id(value)  # type: ignore[arg-type]


@given(st.integers(1, 10_000), st.floats(0, 1e6), st.floats(0, 1e5), st.floats(0, 1))
def test_a_delay_stays_within_its_bounds(attempt: int, base: float, cap: float, jitter: float) -> None:
    assert 0 <= Exponential(base, cap=cap, jitter=jitter)(attempt) <= cap
    assert Exponential(base, cap=cap, jitter=0)(attempt) == min(cap, base * 2.0 ** min(attempt - 1, 64))
    assert 0 <= Linear(base, cap=cap)(attempt) <= cap
    assert Fixed(base)(attempt) == base


def test_what_may_be_a_backoff() -> None:
    assert delay_seconds(3, 1, None) == 3
    assert delay_seconds(timedelta(minutes=1), 9, None) == 60
    assert delay_seconds(lambda attempt, error: attempt * 2, 4, ValueError()) == 8
    assert [Linear(5, step=10)(n) for n in (1, 2, 3)] == [5, 15, 25]


@pytest.mark.parametrize("value", [-1, True, "soon", float("nan"), float("inf"), lambda attempt, error: -1])
def test_what_may_not(value: object) -> None:
    with pytest.raises(InvalidOption):
        delay_seconds(value, 1, None)  # type: ignore[arg-type]


def test_jitter_lies_between_none_and_full() -> None:
    with pytest.raises(InvalidOption, match="jitter is 2"):
        Exponential(1, jitter=2)
