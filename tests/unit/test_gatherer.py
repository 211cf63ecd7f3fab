"""Where attempts of batch consumers wait for each other, and how many the worker asks for meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rf_jobs import Job, JobContext
from rf_jobs.store.shapes import Leased
from rf_jobs.words.options import Many
from rf_jobs.worker.appetite import MAX_FETCH, Appetite
from rf_jobs.worker.attempt import Attempt
from rf_jobs.worker.gatherer import Gatherer

LONG = 60.0


class First(Job):
    @classmethod
    async def handle_many(cls, jobs: list[Any], ctxs: list[JobContext]) -> None: ...


class Second(Job):
    @classmethod
    async def handle_many(cls, jobs: list[Any], ctxs: list[JobContext]) -> None: ...


KINDS = (First.__job_class__, Second.__job_class__)


def attempt(number: int, kind: int) -> Attempt:
    one = Attempt(Leased(str(number), b"", "q", 1, 0, 0, 0, 0, "", "t"), number, 0.0, 0)
    one.entry = KINDS[kind]
    return one


@given(st.integers(1, 7), st.lists(st.sampled_from(["first", "second", "take ripe", "take all"]), max_size=60))
def test_nobody_is_lost_and_no_crowd_is_too_large(size: int, steps: list[str]) -> None:
    """Beside a model: attempts by class, in the order in which they came."""

    async def run() -> None:
        heard: list[bool] = []
        gatherer = Gatherer(lambda: heard.append(True))
        growing: dict[int, list[str]] = {0: [], 1: []}
        ripe: list[list[str]] = []
        for number, step in enumerate(steps):
            if step == "take ripe":
                assert [each.leased.id for each in gatherer.take_ripe()] == [each for crowd in ripe for each in crowd]
                ripe.clear()
            elif step == "take all":
                waiting = [each for crowd in [*ripe, *growing.values()] for each in crowd]
                assert sorted(each.leased.id for each in gatherer.take_all()) == sorted(waiting)
                ripe.clear()
                growing = {0: [], 1: []}
            else:
                kind = ("first", "second").index(step)
                gatherer.add(attempt(number, kind), KINDS[kind], Many(size, LONG))
                growing[kind].append(str(number))
                if len(growing[kind]) == size:
                    ripe.append(growing[kind])
                    growing[kind] = []
                    assert heard.pop()
            assert heard == []
            assert [[each.leased.id for each in crowd.members] for crowd in gatherer.ripe] == ripe
            assert len(gatherer) == sum(map(len, [*ripe, *growing.values()]))
        gatherer.take_all()

    asyncio.run(run())


async def test_a_crowd_is_ripe_when_its_first_has_waited_long_enough() -> None:
    news = asyncio.Event()
    gatherer = Gatherer(news.set)
    gatherer.add(attempt(1, 0), KINDS[0], Many(10, 0.05))
    gatherer.add(attempt(2, 0), KINDS[0], Many(10, 0.05))
    async with asyncio.timeout(10):
        await news.wait()
    [crowd] = gatherer.ripe
    assert [member.leased.id for member in crowd.members] == ["1", "2"]
    gatherer.add(attempt(3, 0), KINDS[0], Many(10, LONG))
    assert len(gatherer.ripe[0].members) == 2, "who comes later waits for the next"
    gatherer.take_all()


async def test_what_was_taken_back_is_not_ripe_later() -> None:
    heard: list[bool] = []
    gatherer = Gatherer(lambda: heard.append(True))
    gatherer.add(attempt(1, 0), KINDS[0], Many(10, 0.01))
    assert len(gatherer.take_all()) == 1
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, done.set)
    await done.wait()
    assert (heard, list(gatherer.ripe)) == ([], [])


@given(st.integers(1, 20), st.integers(0, 500), st.integers(0, 40), st.integers(0, 40), st.integers(0, 1000))
def test_what_waits_for_its_crowd_is_asked_for_again_and_only_while_a_slot_is_free(
    slots: int, prefetch: int, running: int, in_line: int, lent: int
) -> None:
    appetite = Appetite(slots, prefetch)
    plain = appetite.wanted(running, in_line)
    appetite.lent = lent
    wanted = appetite.wanted(running, in_line)
    assert plain == max(0, slots - running - in_line)
    assert wanted == (min(MAX_FETCH, plain + lent) if plain else 0)
