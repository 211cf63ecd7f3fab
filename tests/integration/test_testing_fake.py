"""``FakeQueue``: what it records, what it refuses, and what its failures say."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import assert_type
from unittest.mock import ANY
from uuid import UUID, uuid4

import pytest

from rf_jobs import (
    BackendError,
    DuplicateJob,
    Envelope,
    EventBus,
    Headers,
    InvalidOption,
    Job,
    JobContext,
    Middleware,
    Priority,
    Queue,
    QueueManager,
    Settings,
    WorkerError,
    configure,
    events,
)
from rf_jobs.sync import QueueManager as BlockingManager
from rf_jobs.testing import Dispatched, FakeQueue, inline


class SendMail(Job, queue="emails", tags=["mail"]):
    to: str
    subject: str = "Hello"

    async def handle(self, ctx: JobContext) -> None:
        raise AssertionError("a fake runs nothing")


class Resize(Job):
    width: int
    delay: int = 0

    async def handle(self, ctx: JobContext) -> None:
        raise AssertionError("a fake runs nothing")


class Stubborn(Job):
    name: str

    async def handle(self, ctx: JobContext) -> None: ...

    def __repr__(self) -> str:
        raise RuntimeError("no repr today")


async def test_it_records_every_choice_of_a_dispatch() -> None:
    when, given = datetime(2030, 1, 2, tzinfo=UTC), uuid4()
    with FakeQueue() as queue:
        first = await Queue.dispatch(SendMail(to="a@b.c")).delay(timedelta(minutes=5)).tags("tenant:7").max_attempts(9)
        second = await Queue.on("fast").dispatch(Resize(width=1)).priority(Priority.HIGH).at(when).with_id(given)
        third = await Queue.dispatch(Resize(width=2)).expires_in(60)
    assert queue.ids == [first, second, third]
    assert second == given
    mail, resize, plain = queue
    assert (mail.queue, mail.delay, mail.tags, mail.max_attempts) == ("emails", 300.0, ("mail", "tenant:7"), 9)
    assert (mail.job, mail.priority, mail.at, mail.id) == (SendMail(to="a@b.c"), Priority.NORMAL, None, first)
    assert (resize.queue, resize.priority, resize.at, resize.delay) == ("fast", Priority.HIGH, when, 0.0)
    assert plain.choices.expires_ms == 60_000
    assert plain.envelope.exp > plain.envelope.at
    assert queue.jobs == [SendMail(to="a@b.c"), Resize(width=1), Resize(width=2)]


async def test_all_ways_to_dispatch_lead_to_it() -> None:
    with FakeQueue() as queue:
        await Queue.dispatch(Resize(width=1))
        await Queue.dispatch_many([Resize(width=2), Queue.dispatch(Resize(width=3)).on_queue("slow")])
        await Queue.on("slow").dispatch_many([Resize(width=4)])
        await queue.dispatch(Resize(width=5))
        await queue.dispatch_to(Resize(width=6), "other")
        await queue.dispatch_later(Resize(width=7), 60)
        await queue.dispatch_many([Resize(width=8)])
        assert isinstance(Queue.dispatch(Resize(width=9)).sync(), UUID)
        handle = await Queue.dispatch(Resize(width=10)).handle()
        assert handle.id == queue.ids[-1]
    assert [job.width for job in queue.jobs if isinstance(job, Resize)] == list(range(1, 11))
    queue.assert_count(10)
    queue.assert_dispatched(Resize, queue="slow", times=2)


def test_threads_without_a_loop_lead_to_it_too() -> None:
    with FakeQueue() as queue:
        threads = [threading.Thread(target=Queue.dispatch(Resize(width=n)).sync) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {one.job.width for one in queue.dispatched(Resize)} == set(range(8))


async def test_queue_is_taken_over_for_the_block_alone_whatever_is_configured(redis_url: str) -> None:
    try:
        configure(redis_url)
        with FakeQueue() as outer:
            configure(redis_url)  # as a program does when it starts
            await Queue.dispatch(Resize(width=1))
            with FakeQueue() as inner:
                await Queue.dispatch(Resize(width=2))
            await Queue.dispatch(Resize(width=3))
        async with QueueManager(redis_url) as manager:
            configure(manager)
            await Queue.dispatch(Resize(width=4))
            assert await manager.size("default") == 1
    finally:
        configure()
    assert [one.job.width for one in outer.dispatched(Resize)] == [1, 3]
    assert [one.job.width for one in inner.dispatched(Resize)] == [2]


async def test_it_stands_in_for_a_manager_that_is_passed_on() -> None:
    async def sign_up(manager: QueueManager, address: str) -> None:
        async with manager:
            await manager.dispatch(SendMail(to=address))

    queue = FakeQueue()
    await sign_up(queue, "a@b.c")
    queue.assert_dispatched(SendMail, to="a@b.c")
    assert queue
    assert not FakeQueue().ids
    assert FakeQueue(), "a manager that has nothing recorded is a manager all the same"


def test_it_stands_in_for_a_blocking_manager() -> None:
    def sign_up(manager: BlockingManager) -> UUID:
        with manager:
            manager.dispatch_many([Resize(width=1), manager.dispatch(Resize(width=2)).tags("x")])
            return manager.dispatch(SendMail(to="a@b.c")).delay(60).sync()

    queue = FakeQueue()
    assert queue.ids[-1:] == []
    job_id = sign_up(queue.blocking)
    queue.assert_dispatched(SendMail, id=job_id, delay=60)
    queue.assert_dispatched(Resize, times=2)
    with pytest.raises(BackendError, match="no server behind it"):
        queue.blocking.size("default")
    with inline() as runs, pytest.raises(AssertionError, match="a fake runs nothing"):
        runs.blocking.dispatch(Resize(width=1)).max_attempts(1).sync()


async def test_what_needs_a_server_says_that_there_is_none() -> None:
    with FakeQueue() as queue:
        job_id = await Queue.dispatch(Resize(width=1))
        asks: list[Callable[[], Awaitable[object]]] = [
            lambda: queue.size("default"),
            lambda: queue.job(job_id),
            lambda: queue.cancel(job_id),
            lambda: queue.pause("default"),
            lambda: queue.store.wait_for_wake(["q"], 1.0),
            queue.store.finals,
            lambda: queue.store.pass_on("q"),
            queue.store.drop_namespace,
        ]
        for ask in asks:
            with pytest.raises(BackendError, match=r"a stand-in .* no server behind it"):
                await ask()
    with pytest.raises(WorkerError, match="was not entered"):
        queue.__exit__(None, None, None)


# --- the same checks as the real one -------------------------------------------------------------------------------

BAD: dict[str, Callable[[QueueManager], Awaitable[object]]] = {
    "payload": lambda m: m.dispatch(Resize(width="wide")),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    "one of many": lambda m: m.dispatch_many([Resize(width=1), Resize(width=None)]),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    "too large": lambda m: m.dispatch(SendMail(to="x" * 2_000_000)),
    "no job": lambda m: m.dispatch("a string"),  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    "queue": lambda m: m.dispatch_to(Resize(width=1), "no spaces"),
    "delay": lambda m: m.dispatch_later(Resize(width=1), -1),
    "naive": lambda m: m.dispatch(Resize(width=1)).at(datetime(2030, 1, 1)),  # noqa: DTZ001
    "attempts": lambda m: m.dispatch(Resize(width=1)).max_attempts(0),
    "tags": lambda m: m.dispatch(Resize(width=1)).tags(""),
    "priority": lambda m: m.dispatch(Resize(width=1)).priority("urgent"),
}


@pytest.mark.parametrize("bad", BAD)
async def test_bad_input_is_refused_as_by_the_real_manager(bad: str, redis_url: str) -> None:
    async def refusal(manager: QueueManager) -> tuple[type[BaseException], str, list[object]]:
        seen: list[object] = []
        manager.bus.subscribe(events.DispatchRejected, lambda e: seen.append((e.queue, e.job_class, e.reason)))
        with pytest.raises(Exception) as refused:  # noqa: PT011 (which one is what is compared)
            await BAD[bad](manager)
        return refused.type, str(refused.value), seen

    async with QueueManager(redis_url) as real:
        expected = await refusal(real)
        assert await real.queues() == []
    fake = FakeQueue(redis_url)
    assert await refusal(fake) == expected
    fake.assert_nothing_dispatched()


async def test_an_id_is_taken_as_in_the_store(redis_url: str) -> None:
    async def story(manager: QueueManager) -> list[object]:
        seen: list[object] = []
        manager.bus.subscribe(events.JobEvent, lambda e: seen.append(type(e).__name__))
        given = UUID(int=7)
        seen.append(await manager.dispatch(Resize(width=1)).with_id(given))
        seen.append(await manager.dispatch(Resize(width=1)).with_id(given))
        with pytest.raises(DuplicateJob, match="is taken by"):
            await manager.dispatch(Resize(width=2)).with_id(given)
        with pytest.raises(DuplicateJob, match="is taken by"):
            await manager.dispatch_many([Resize(width=3), manager.dispatch(Resize(width=2)).with_id(given)])
        return seen

    async with QueueManager(redis_url) as real:
        expected = await story(real)
    fake = FakeQueue(redis_url)
    told = await story(fake)
    assert [each for each in told if isinstance(each, UUID)] == [each for each in expected if isinstance(each, UUID)]
    assert told[:4] == expected[:4]
    assert fake.jobs == [Resize(width=1)]


async def test_it_goes_by_the_settings_and_middlewares_that_queue_has() -> None:
    class Tenant(Middleware):
        def on_dispatch(self, envelope: Envelope, headers: Headers) -> None:
            headers.bg = {"tenant": "7"}

    settings = Settings()
    bus = EventBus()
    dispatched: list[events.JobDispatched] = []
    bus.subscribe(events.JobDispatched, dispatched.append)
    try:
        configure(replace(settings, jobs=replace(settings.jobs, default_queue="usual")), middleware=[Tenant()])
        with FakeQueue(bus=bus) as queue:
            await Queue.dispatch(Resize(width=1)).delay(2)
    finally:
        configure()
    [one] = queue
    assert one.queue == "usual"
    assert one.envelope.hdr is not None
    assert one.envelope.hdr.bg == {"tenant": "7"}
    assert [(event.queue, event.state, event.delay_ms) for event in dispatched] == [("usual", "scheduled", 2000)]


# --- what is asserted ----------------------------------------------------------------------------------------------


async def some() -> FakeQueue:
    queue = FakeQueue()
    await queue.dispatch(Resize(width=3)).delay(60)
    await queue.dispatch(SendMail(to="x@y.z", subject="Bye")).tags("tenant:7")
    await queue.dispatch(SendMail(to="a@b.c")).priority("high")
    return queue


async def test_what_fits_is_answered() -> None:
    queue = await some()
    [mail] = assert_type(queue.assert_dispatched(SendMail, to="a@b.c"), list[Dispatched[SendMail]])
    assert mail.job.subject == "Hello"
    assert_type(queue.assert_dispatched(SendMail(to="a@b.c"))[0].job, SendMail)
    assert_type(queue.dispatched(Resize, lambda one: one.job.width > 1)[0].job.width, int)
    assert len(queue.assert_dispatched(SendMail)) == 2
    queue.assert_dispatched(SendMail, times=2)
    queue.assert_dispatched(SendMail(to="a@b.c"), times=1)
    queue.assert_dispatched(Resize, times=1, queue="default")
    queue.assert_dispatched(Resize, lambda one: one.delay > 50 and one.job.width == 3)
    queue.assert_dispatched(SendMail, to=ANY, tags=["tenant:7"], queue="emails", priority=1)
    queue.assert_dispatched(SendMail, id=mail.id, priority="HIGH", at=None, max_attempts=None, delay=0)
    queue.assert_dispatched(Job, times=3)
    queue.assert_dispatched(Stubborn, times=0)
    queue.assert_not_dispatched(Stubborn)
    queue.assert_not_dispatched(SendMail, to="nobody")
    queue.assert_count(3)
    assert queue.dispatched(SendMail, subject="Bye")[0].tags == ("mail", "tenant:7")
    queue.forget()
    queue.assert_nothing_dispatched()
    assert len(queue) == 0


FAILURES: dict[str, tuple[Callable[[FakeQueue], object], str]] = {
    "other value, nearest first": (
        lambda q: q.assert_dispatched(SendMail, to="a@b.c", subject="Bye"),
        (
            "SendMail(to='a@b.c', subject='Bye') was not dispatched; dispatched were, nearest first:\n"
            "  SendMail(to='x@y.z', subject='Bye') on 'emails', tags mail, tenant:7    <- to is 'x@y.z', not 'a@b.c'\n"
            "  SendMail(to='a@b.c', subject='Hello') on 'emails', priority HIGH, tags mail    <- subject is 'Hello', not 'Bye'\n"
            "  Resize(width=3, delay=0) on 'default', delayed 60 s"
        ),
    ),
    "fewer faults come first": (
        lambda q: q.assert_dispatched(SendMail, to="a@b.c", queue="fast"),
        (
            "SendMail(to='a@b.c', queue='fast') was not dispatched; dispatched were, nearest first:\n"
            "  SendMail(to='a@b.c', subject='Hello') on 'emails', priority HIGH, tags mail    <- queue is 'emails', not 'fast'\n"
            "  SendMail(to='x@y.z', subject='Bye') on 'emails', tags mail, tenant:7"
            "    <- to is 'x@y.z', not 'a@b.c'; queue is 'emails', not 'fast'\n"
            "  Resize(width=3, delay=0) on 'default', delayed 60 s"
        ),
    ),
    "tags": (lambda q: q.assert_dispatched(SendMail, tags=["tenant:8"]), "<- tags has no tenant:8"),
    "predicate": (
        lambda q: q.assert_dispatched(Resize, lambda one: one.delay > 60),
        (
            "Resize that fits the predicate was not dispatched; dispatched were, nearest first:\n"
            "  Resize(width=3, delay=0) on 'default', delayed 60 s    <- the predicate says no"
        ),
    ),
    "too often": (lambda q: q.assert_dispatched(SendMail, times=1), "SendMail was dispatched twice, expected once; "),
    "too seldom": (lambda q: q.assert_dispatched(Resize, times=3), "Resize was dispatched once, expected 3 times; "),
    "never": (
        lambda q: q.assert_not_dispatched(SendMail, to="a@b.c"),
        (
            "SendMail(to='a@b.c') was dispatched, expected never; dispatched were:\n"
            "  SendMail(to='a@b.c', subject='Hello') on 'emails', priority HIGH, tags mail"
        ),
    ),
    "nothing": (
        lambda q: q.assert_nothing_dispatched(),
        "3 jobs were dispatched, expected none; dispatched were:\n  Res",
    ),
    "count": (lambda q: q.assert_count(2), "3 jobs were dispatched, expected 2; dispatched were:\n  Resize(width=3"),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_a_failure_lists_what_was_dispatched(case: str) -> None:
    check, says = FAILURES[case]
    queue = await some()
    with pytest.raises(AssertionError) as failure:
        check(queue)
    assert says in str(failure.value)


async def test_a_failure_is_readable_whatever_was_dispatched() -> None:
    queue = FakeQueue()
    with pytest.raises(AssertionError, match="Stubborn was not dispatched; nothing was dispatched"):
        queue.assert_dispatched(Stubborn)
    await queue.dispatch(Stubborn(name="x"))
    await queue.dispatch_many([SendMail(to="y" * 9_000) for _ in range(20)])
    with pytest.raises(AssertionError) as failure:
        queue.assert_dispatched(Stubborn, name="z")
    said = str(failure.value)
    assert "<Stubborn whose repr raised RuntimeError>" in said
    assert said.endswith("... and 11 more")
    assert len(said) < 5_000


UNUSABLE: dict[str, tuple[Callable[[FakeQueue], object], str]] = {
    "field": (lambda q: q.assert_dispatched(SendMail, too="a@b.c"), "SendMail has no field 'too'; did you mean 'to'?"),
    "no such": (lambda q: q.assert_not_dispatched(Resize, height=1), "no field 'height'; its fields are width, delay"),
    "ambiguous": (lambda q: q.assert_dispatched(Resize, delay=3), "'delay' is a field of Resize and an option"),
    "class": (lambda q: q.assert_dispatched("SendMail"), "expected is 'SendMail'; give a Job class"),  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    "other class": (lambda q: q.assert_dispatched(dict), "give a Job class"),  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
    "predicate": (lambda q: q.assert_dispatched(SendMail, "a@b.c"), "the predicate is 'a@b.c'"),  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    "times": (lambda q: q.assert_dispatched(SendMail, times=-1), "times is -1; give a whole number from 0"),
    "count": (lambda q: q.assert_count(True), "times is True"),
    "value": (lambda q: q.assert_dispatched(SendMail, priority="urgent"), "priority is 'urgent'"),
    "queue": (lambda q: q.dispatched(SendMail, queue="a b"), "queue name is 'a b'"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_no_dispatch_could_be_is_an_error_of_the_test(case: str) -> None:
    check, says = UNUSABLE[case]
    with pytest.raises(InvalidOption) as refused:
        check(FakeQueue())
    assert says in str(refused.value)
