"""Batches and chains before stand-ins."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from rf_jobs import (
    Batch,
    BatchHandle,
    Chain,
    Discard,
    DuplicateJob,
    InvalidOption,
    Job,
    JobContext,
    JobError,
    JobNotFound,
    Queue,
    QueueManager,
    SerializationError,
)
from rf_jobs.testing import DispatchedGroup, FakeQueue, drain, inline


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
        (
            "a chain Resize -> Fetch was not dispatched; dispatched were:\n"
            "  chain 'picture': Fetch(url='u') -> Resize(width=7)\n  chain: Fetch(url='c') -> Resize(width=100)"
        ),
    ),
    "more steps": (
        lambda q: q.assert_chained(Fetch, Resize, Tidy),
        "a chain Fetch -> Resize -> Tidy was not dispatched",
    ),
    "name": (lambda q: q.assert_chained(Fetch, Resize, name="x"), "a chain 'x' Fetch -> Resize was not dispatched"),
    "times": (lambda q: q.assert_chained(Fetch, Resize, times=1), "was dispatched twice, expected once"),
    "members": (
        lambda q: q.assert_batched(members=[Fetch, Resize]),
        "a batch Fetch, Resize was not dispatched; dispatched",
    ),
    "inside": (
        lambda q: q.assert_batched(members=[[Resize], Tidy]),
        (
            "a batch (Resize), Tidy was not dispatched; dispatched were:\n"
            "  batch 'newsletter': Fetch(url='a'), Fetch(url='b')\n"
            "  batch: (chain: Fetch(url='c') -> Resize(width=100)), Tidy()"
        ),
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
        with pytest.raises(InvalidOption, match=r"callback .*Tidy is delayed"):
            await Batch([Fetch(url="a")]).then(Queue.dispatch(Tidy()).delay(5)).dispatch()
        with pytest.raises(InvalidOption, match="lambda"):
            Batch([Fetch(url="a")]).then(lambda batch: None)  # type: ignore[arg-type,return-value]  # pyright: ignore[reportArgumentType]
        with pytest.raises(InvalidOption, match="no members"):
            await Chain().dispatch()
        with pytest.raises(SerializationError, match="field 'url'"):
            await Chain([Fetch(url="a"), Fetch(url=3)]).dispatch()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        batch = Batch([Fetch(url="a")])
        with pytest.raises(InvalidOption, match="twice, or inside itself"):
            await batch.add(batch).dispatch()
        with pytest.raises(InvalidOption, match="got no steps"):
            queue.assert_chained()
        with pytest.raises(InvalidOption, match="expected is 3; give a Job class"):
            queue.assert_chained(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(InvalidOption, match="the predicate is 3"):
            queue.assert_batched(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    queue.assert_nothing_dispatched()
    assert queue.groups == []


async def test_a_group_under_the_same_id_is_there_once() -> None:
    with FakeQueue() as queue:
        batch = Batch([Fetch(url="a")])
        assert await batch.dispatch() == await batch.dispatch()
    queue.assert_batched(times=1)
    queue.assert_count(1)


async def test_unique_locks_are_kept_as_in_the_store() -> None:
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
        asked = [await Queue.dispatch(Resize()).unique_for(30, on_conflict="debounce") for _ in range(3)]
        [debounced] = queue.assert_dispatched(Resize, times=1)
        assert (debounced.id, debounced.delay) == (asked[-1], 30.0)


# --- inline --------------------------------------------------------------------------------------------------------

told: list[str] = []


class Tells(Job):
    name: str

    async def handle(self, ctx: JobContext) -> str:
        if self.name == "fails":
            raise RuntimeError("as told")
        if self.name == "discards":
            raise Discard("as told")
        told.append(f"{self.name} after {ctx.previous}" if ctx.previous else self.name)
        if ctx.batch is not None and self.name == "asks":
            told.append(f"{(await ctx.batch.progress()).processed} done")
        return self.name


async def on_catch(batch: BatchHandle, error: JobError) -> None:
    told.append(f"catch: {error}")


async def on_end(batch: BatchHandle) -> None:
    progress = await batch.progress()
    record = await batch.record()
    told.append(
        f"end: {progress.completed} of {progress.total}, {progress.failed} failed, {record.name} {record.state}"
    )


async def test_a_chain_runs_its_steps_with_what_the_one_before_returned() -> None:
    told.clear()
    with inline() as queue:
        await Chain([Tells(name="a"), Tells(name="b"), Tells(name="c")]).name("abc").finally_(on_end).dispatch()
    assert told == ["a", "b after a", "c after b", "end: 3 of 3, 0 failed, abc completed"]
    queue.assert_chained(Tells(name="a"), Tells, Tells)


async def test_a_failure_ends_a_chain() -> None:
    told.clear()
    with inline() as queue, pytest.raises(RuntimeError, match="as told"):
        await (
            Chain([Tells(name="a"), queue.dispatch(Tells(name="fails")).max_attempts(1), Tells(name="c")])
            .catch(on_catch)
            .finally_(on_end)
            .dispatch()
        )
    assert told == ["a", "catch: RuntimeError: as told", "end: 1 of 3, 2 failed,  failed"]
    assert [queue.ran(each).state for each in queue.ids[:3]] == ["completed", "dead", "cancelled"]


async def test_a_batch_runs_all_and_then_what_follows() -> None:
    told.clear()
    with inline() as queue:
        batch = Batch([Tells(name="a"), Chain([Tells(name="b"), Tells(name="c")]), Tells(name="asks")]).name("all")
        await batch.then(Tells(name="then")).catch(on_catch).finally_(on_end).dispatch()
        assert await batch.wait() == "completed"
        assert (await batch.progress()).percentage == 100
    assert told == ["a", "b", "c after b", "asks", "2 done", "then", "end: 3 of 3, 0 failed, all completed"]
    queue.assert_dispatched(Tells, name="then", times=1)


def once(name: str) -> Tells:
    return Tells(name=name)


SHAPES: dict[str, Callable[[], Batch | Chain]] = {
    "batch": lambda: Batch([once("a"), once("b")]).then(once("then")).catch(on_catch),
    "failure": lambda: Batch([once("fails")]).then(once("then")).catch(on_catch),
    "discard": lambda: Batch([once("discards")]).then(once("then")).catch(on_catch),
    "allowed": lambda: Batch([once("fails"), once("b")]).allow_failures().then(once("then")).catch(on_catch),
    "chain": lambda: Chain([once("a"), once("b")]).catch(on_catch),
    "broken chain": lambda: Chain([once("a"), once("fails"), once("b")]).catch(on_catch),
    "chains in a batch": lambda: Batch([Chain([once("a"), once("b")]), once("c")]).then(once("then")),
    "batch in a chain": lambda: Chain([once("a"), Batch([once("b"), once("c")]), once("d")]),
    "failure inside": lambda: Chain([Batch([once("fails")]), once("b")]).catch(on_catch),
    "allowed inside": lambda: Chain([Batch([once("fails")]).allow_failures(), once("b")]).catch(on_catch),
    "broken chain in a batch": lambda: Batch([Chain([once("fails"), once("b")])]).then(once("then")).catch(on_catch),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_inline_ends_as_on_a_real_server(shape: str, redis_url: str) -> None:
    told.clear()
    with inline(raise_errors=False):
        await SHAPES[shape]().finally_(on_end).dispatch()
    at_once = sorted(told)
    told.clear()
    async with QueueManager(redis_url) as manager:
        await SHAPES[shape]().finally_(on_end).dispatch(manager)
        await drain(manager, with_scheduled=True, raise_errors=False, concurrency=1)
    assert [re.sub(r"[0-9a-f-]{36}", "ID", line) for line in at_once] == [
        re.sub(r"[0-9a-f-]{36}", "ID", line) for line in sorted(told)
    ]


async def test_allowed_failures_are_not_raised_and_those_of_callbacks_are() -> None:
    told.clear()
    with inline() as queue:
        await Batch([Tells(name="fails")]).allow_failures().dispatch()
        with pytest.raises(RuntimeError, match="as told"):
            await Batch([Tells(name="a")]).then(Tells(name="fails")).dispatch()
        with pytest.raises(JobNotFound, match="no batch"):
            queue.batch(queue.ids[0])


async def test_a_job_that_waits_for_a_failed_one_does_as_it_was_told() -> None:
    told.clear()
    with inline(raise_errors=False) as queue:
        failed = await Queue.dispatch(Tells(name="fails"))
        fine = await Queue.dispatch(Tells(name="fine"))
        cancelled = await Queue.dispatch(Tells(name="x")).depends_on(failed, fine)
        dead = await Queue.dispatch(Tells(name="x")).depends_on(failed, on_failure="dead")
        await Queue.dispatch(Tells(name="y")).depends_on(failed, fine, on_failure="run")
    assert [queue.ran(each).state for each in (cancelled, dead)] == ["cancelled", "dead"]
    assert told == ["fine", "y after ['fine']"]
