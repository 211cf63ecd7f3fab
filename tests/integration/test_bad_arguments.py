"""Arguments of the wrong kind: each gets an error that names it, and nothing happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast
from uuid import uuid4

import pytest

from rf_jobs import Batch, Chain, ConfigError, Filters, InvalidOption, Job, QueueManager, Scheduler, SchedulerError
from tests.support.jobs import QUEUE, Add

HALF = "\ud800"
Call = Callable[[QueueManager], Awaitable[Any]]


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running


def any_(value: object) -> Any:
    """What a type checker would refuse."""
    return cast(Any, value)


CALLS: dict[str, tuple[Call, str]] = {
    "dispatch_many of one job": (lambda m: m.dispatch_many(any_(Add(a=1, b=2))), "jobs is Add"),
    "dispatch_many of nothing": (lambda m: m.dispatch_many(any_(None)), "jobs is None"),
    "pop_batch of a text": (lambda m: m.pop_batch(QUEUE, any_("5")), "asked for '5'"),
    "logs after a text": (lambda m: m.job_logs(uuid4(), after=any_("5")), "after is '5'"),
    "batches from below": (lambda m: m.batches(-1), "offset is -1"),
    "no batches": (lambda m: m.batches(0, 0), "limit is 0"),
    "a limit of a fraction": (lambda m: m.failed_jobs(limit=any_(1.5)), "limit is 1.5"),
    "schedules of None": (lambda m: m.schedules.list(any_(None)), "offset is None"),
    "one state": (lambda m: m.search(states="ready"), "states is 'ready'"),
    "a search for a number": (lambda m: m.search(text=any_(5)), "text is 5"),
    "a tag of bytes": (lambda m: m.search(tag=any_(b"x")), "tag is b'x'"),
    "a scan of a text": (lambda m: m.search(scan=any_("all")), "scan is 'all'"),
    "filters by name": (lambda m: m.retry_all_failed(any_("emails")), r"filters is 'emails'.*Filters\(queue="),
    "filters of nothing": (lambda m: m.retry_all_failed(any_({})), "filters is {}"),
    "a purge by name": (lambda m: m.purge_failed(0, any_("emails")), "filters is 'emails'"),
    "a reason of half a character": (lambda m: m.cancel(uuid4(), HALF), "reason is"),
    "a batch's reason": (lambda m: m.batch(uuid4()).cancel(any_(5)), "reason is 5"),
    "a class of half a character": (lambda m: m.pause_class(HALF), "job class is"),
    "the holder of a job": (lambda m: m.unique_holder(any_(Add(a=1, b=2))), "unique_holder got Add"),
    "a batch to an address": (lambda _: Batch([Add(a=1, b=2)]).dispatch(any_("redis://")), "dispatch got 'redis://'"),
    "a rate of a number": (lambda m: m.limits.set("x", rate=any_(5)), "rate is 5"),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call(manager: QueueManager, name: str) -> None:
    call, says = CALLS[name]
    with pytest.raises(InvalidOption, match=says):
        await call(manager)


async def test_filters_that_are_none_replay_nothing(manager: QueueManager) -> None:
    assert await manager.retry_all_failed(Filters()) == 0


@pytest.mark.parametrize(("by", "says"), [("a", "by is 'a'"), (["nme"], "by is 'nme'.*it has a, b"), ([5], "by is 5"), (None, "by is None")])  # fmt: skip
async def test_unique_by_what_the_job_does_not_have(manager: QueueManager, by: object, says: str) -> None:
    with pytest.raises(InvalidOption, match=says):
        manager.dispatch(Add(a=1, b=2)).unique_for(5, by=any_(by))


@pytest.mark.parametrize("members", [Add(a=1, b=2), None, "jobs", 5])
def test_members_that_are_no_sequence(members: object) -> None:
    with pytest.raises(InvalidOption, match="members is"):
        Batch(any_(members))
    with pytest.raises(InvalidOption, match="steps is"):
        Chain(any_(members))


def test_a_batch_named_by_half_a_character() -> None:
    with pytest.raises(InvalidOption, match="name is"):
        Batch().name(HALF)


@pytest.mark.parametrize("name", [5, b"greet", HALF, ("a",)])
def test_a_class_with_a_name_that_is_none(name: object) -> None:
    def define() -> type[Job]:
        class Named(Job, name=any_(name)):
            async def handle(self, ctx: object) -> None: ...

        return Named

    with pytest.raises(InvalidOption, match=r"name of class .*Named is"):
        define()


@pytest.mark.parametrize("key", ["concurrency_key", "fair_key"])
def test_a_key_that_is_no_name(key: str) -> None:
    def define() -> type[Job]:
        class Keyed(Job, **any_({key: 5, "concurrency": 1})):
            async def handle(self, ctx: object) -> None: ...

        return Keyed

    with pytest.raises(InvalidOption, match=f"{key} is 5, which is no field"):
        define()


@pytest.mark.parametrize(
    ("options", "says"),
    [({"bus": 3}, "bus is 3"), ({"payloads": 3}, "payloads is 3, which has no put"), ({"middleware": 3}, "middleware is 3")],
)  # fmt: skip
def test_a_manager_of_what_is_none(redis_url: str, options: dict[str, object], says: str) -> None:
    with pytest.raises((ConfigError, InvalidOption), match=says):
        QueueManager(redis_url, **any_(options))


@pytest.mark.parametrize("given", [{"cron": ["* * * * *"]}, {"cron": "* * * * *", "timezone": ["UTC"]}])
async def test_a_schedule_of_lists(manager: QueueManager, given: dict[str, object]) -> None:
    with pytest.raises((SchedulerError, InvalidOption), match="give a text"):
        await manager.schedules.upsert("nightly", Add(a=1, b=2), **any_(given))


def test_a_scheduler_of_an_address() -> None:
    with pytest.raises(SchedulerError, match=r"manager is 'redis://host'; give a QueueManager"):
        Scheduler(any_("redis://host"))


async def test_a_group_that_is_none(manager: QueueManager) -> None:
    with pytest.raises(InvalidOption, match="give a Batch or a Chain"):
        await manager.send_group(any_("jobs"))
