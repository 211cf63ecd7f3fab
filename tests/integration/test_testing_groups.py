"""Batches and chains before stand-ins."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rf_jobs import Batch, Chain, InvalidOption, Job, JobContext, Queue, SerializationError
from rf_jobs.testing import DispatchedGroup, FakeQueue


class Fetch(Job, queue="media"):
    url: str

    async def handle(self, ctx: JobContext) -> str:
        return f"bytes of {self.url}"


class Resize(Job, queue="media"):
    width: int = 100

    async def handle(self, ctx: JobContext) -> str:
        return f"{ctx.previous} at {self.width}"


class Tidy(Job):
    async def handle(self, ctx: JobContext) -> None: ...


async def on_error(batch: object, error: object) -> None: ...


async def some() -> FakeQueue:
    with FakeQueue() as queue:
        await Chain().name("picture").then(Fetch(url="u")).then(Resize(width=7)).catch(on_error).dispatch()
        batch = Batch([Fetch(url="a"), queue.dispatch(Fetch(url="b")).delay(5)]).name("newsletter").allow_failures()
        await batch.then(Tidy()).finally_(on_error).dispatch()
        await Batch([Chain([Fetch(url="c"), Resize()]), Tidy()]).dispatch(queue)
    return queue


async def test_groups_and_the_jobs_in_them_are_recorded() -> None:
    queue = await some()
    chain, batch, nested = queue.groups
    assert (chain.kind, chain.name, chain.jobs) == ("chain", "picture", [Fetch(url="u"), Resize(width=7)])
    assert (chain.then, chain.catch, chain.finally_, chain.allow_failures) == ((), (on_error,), (), False)
    assert (batch.kind, batch.name, len(batch.members), batch.allow_failures) == ("batch", "newsletter", 2, True)
    assert (batch.then, batch.finally_) == ((Tidy(),), (on_error,))
    inner, tidy = nested.members
    assert isinstance(inner, DispatchedGroup)
    assert not isinstance(tidy, DispatchedGroup)
    assert inner.kind == "chain"
    assert nested.jobs == [Fetch(url="c"), Resize(), Tidy()]
    queue.assert_dispatched(Fetch, times=4, queue="media")
    queue.assert_dispatched(Fetch, url="b", delay=5)
    queue.assert_dispatched(Resize, depends_on=[queue.ids[0]], width=7)
    queue.assert_count(7)


async def test_what_fits_is_answered() -> None:
    queue = await some()
    [chain] = queue.assert_chained(Fetch, Resize(width=7))
    assert chain.name == "picture"
    queue.assert_chained(Fetch, Resize, times=2)
    queue.assert_chained(Fetch, Resize, name="picture", times=1)
    queue.assert_chained(Fetch, times=0)
    queue.assert_batched(times=2)
    queue.assert_batched(name="newsletter", count=2, members=[Fetch(url="a"), Fetch])
    queue.assert_batched(members=[[Fetch, Resize], Tidy])
    [batch] = queue.assert_batched(lambda one: one.allow_failures)
    assert batch.then == (Tidy(),)


FAILURES: dict[str, tuple[Callable[[FakeQueue], object], str]] = {
    "order": (
        lambda q: q.assert_chained(Resize, Fetch),
        "a chain Resize -> Fetch was not dispatched; dispatched were:\n"
        "  chain 'picture': Fetch(url='u') -> Resize(width=7)\n  chain: Fetch(url='c') -> Resize(width=100)",
    ),
    "more steps": (lambda q: q.assert_chained(Fetch, Resize, Tidy), "a chain Fetch -> Resize -> Tidy was not dispatched"),
    "name": (lambda q: q.assert_chained(Fetch, Resize, name="x"), "a chain 'x' Fetch -> Resize was not dispatched"),
    "times": (lambda q: q.assert_chained(Fetch, Resize, times=1), "was dispatched twice, expected once"),
    "members": (lambda q: q.assert_batched(members=[Fetch, Resize]), "a batch Fetch, Resize was not dispatched; dispatched"),
    "inside": (
        lambda q: q.assert_batched(members=[[Resize], Tidy]),
        "a batch (Resize), Tidy was not dispatched; dispatched were:\n"
        "  batch 'newsletter': Fetch(url='a'), Fetch(url='b')\n"
        "  batch: (chain: Fetch(url='c') -> Resize(width=100)), Tidy()",
    ),
    "count": (lambda q: q.assert_batched(count=3), "a batch of 3 members was not dispatched"),
    "predicate": (lambda q: q.assert_batched(lambda one: False), "a batch that fits the predicate was not dispatched"),
    "nothing": (lambda q: q.assert_nothing_dispatched(), "7 jobs were dispatched, expected none"),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_a_failure_lists_the_groups(case: str) -> None:
    check, says = FAILURES[case]
    queue = await some()
    with pytest.raises(AssertionError) as failure:
        check(queue)
    assert says in str(failure.value)


async def test_where_there_is_no_group_the_jobs_are_listed() -> None:
    queue = FakeQueue()
    await queue.dispatch(Tidy())
    with pytest.raises(AssertionError, match=r"a batch was not dispatched; .* no batch; dispatched were:\n  Tidy\(\)"):
        queue.assert_batched()


async def test_what_the_real_manager_refuses_is_refused() -> None:
    with FakeQueue() as queue:
        with pytest.raises(InvalidOption, match="callback Tidy is delayed|callback .*Tidy is delayed"):
            await Batch([Fetch(url="a")]).then(Queue.dispatch(Tidy()).delay(5)).dispatch()
        with pytest.raises(InvalidOption, match="lambda"):
            Batch([Fetch(url="a")]).then(lambda batch: None)  # type: ignore[arg-type,return-value]  # pyright: ignore
        with pytest.raises(InvalidOption, match="no members"):
            await Chain().dispatch()
        with pytest.raises(SerializationError, match="field 'url'"):
            await Chain([Fetch(url="a"), Fetch(url=3)]).dispatch()  # type: ignore[arg-type]  # pyright: ignore
        batch = Batch([Fetch(url="a")])
        with pytest.raises(InvalidOption, match="twice, or inside itself"):
            await batch.add(batch).dispatch()
        for bad in (lambda: queue.assert_chained(), lambda: queue.assert_chained("Fetch"), lambda: queue.assert_batched(3)):  # type: ignore[arg-type]  # pyright: ignore
            with pytest.raises(InvalidOption):
                bad()
    queue.assert_nothing_dispatched()
    assert queue.groups == []


async def test_a_group_under_the_same_id_is_there_once() -> None:
    with FakeQueue() as queue:
        batch = Batch([Fetch(url="a")])
        assert await batch.dispatch() == await batch.dispatch()
    queue.assert_batched(times=1)
    queue.assert_count(1)


async def test_unique_locks_are_kept_as_in_the_store() -> None:
    from rf_jobs import DuplicateJob

    with FakeQueue() as queue:
        first = await Queue.dispatch(Fetch(url="a")).unique_for(60)
        assert await Queue.dispatch(Fetch(url="a")).unique_for(60) == first
        assert await Queue.dispatch(Fetch(url="b")).unique_for(60) != first
        with pytest.raises(DuplicateJob, match=f"holds the unique lock: job {first}"):
            await Queue.dispatch(Fetch(url="a")).unique_for(60, on_conflict="raise")
        queue.assert_count(2)
        newer = await Queue.dispatch(Fetch(url="a")).unique_for(60, on_conflict="replace")
        assert newer in queue.ids
        assert first not in queue.ids
        for _ in range(3):
            last = await Queue.dispatch(Resize()).unique_for(30, on_conflict="debounce")
        [debounced] = queue.assert_dispatched(Resize, times=1)
        assert (debounced.id, debounced.delay) == (last, 30.0)
