"""How ``rf-jobs top`` counts, and how it shares a screen out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rf_jobs.cli.live import shares
from rf_jobs.cli.looking import RATED, rates_between
from rf_jobs.store.shapes import QueueSurvey, Survey


def survey(now_ms: int, instance: str = "a", **ledgers: dict[str, int]) -> Survey:
    queues = [QueueSurvey(name, {}, None, None, None, None, False, ledger) for name, ledger in ledgers.items()]
    return Survey(now_ms, instance, queues)


def test_rates_are_what_the_ledger_counted_a_second() -> None:
    before = survey(1000, old={"dispatched": 10, "completed": 4})
    rates = rates_between(
        before, survey(3000, old={"dispatched": 20, "completed": 4, "dead": 1}, new={"dispatched": 6})
    )
    nothing = dict.fromkeys(RATED, 0.0)
    assert rates == {"old": {**nothing, "dispatched": 5.0, "dead": 0.5}, "new": {**nothing, "dispatched": 3.0}}


@pytest.mark.parametrize("now", [survey(1000, q={}), survey(900, q={}), survey(2000, "b", q={"dispatched": 1})])
def test_what_cannot_be_compared_has_no_rates(now: Survey) -> None:
    assert rates_between(survey(1000, q={"dispatched": 9}), now) is None


def test_a_ledger_that_was_reset_counts_nothing() -> None:
    rates = rates_between(survey(1000, q={"dispatched": 9}), survey(2000, q={"dispatched": 1}))
    assert rates is not None
    assert rates["q"]["dispatched"] == 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=4), st.integers(-5, 120))
def test_lines_are_shared_out(sizes: list[int], room: int) -> None:
    given_to = shares(sizes, room)
    assert sum(given_to) == min(sum(sizes), max(room, 0)), "all that is there is used, and no more"
    assert all(0 <= got <= size for got, size in zip(given_to, sizes, strict=True))
    fair = max(room, 0) // len(sizes)
    assert all(got >= min(size, fair) for got, size in zip(given_to, sizes, strict=True))
