"""What can't be scheduled, what can't be dispatched, and how that is said."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from rf_jobs import (
    InvalidOption,
    JobNotFound,
    QueueManager,
    Scheduler,
    SchedulerError,
    ScheduleState,
    SerializationError,
    UnknownSchedule,
    events,
)
from rf_jobs.core.doctor import deep_check
from rf_jobs.words.recurrence import tick_id
from tests.support.jobs import Add
from tests.support.schedules import Picky, Ticked, heard, rewind, settled
from tests.support.waiting import until


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as one:
        yield one
        assert (await deep_check(one.store)).problems == []


# --- what can't be dispatched ---------------------------------------------------------------------------------------------


async def test_a_class_that_is_unknown_here_is_dispatched_as_it_was_defined(manager: QueueManager) -> None:
    await manager.schedules.upsert(
        "a", Ticked(n=5), every=60, queue="elsewhere", priority="low", max_attempts=4, tags=["x"]
    )
    key = manager.store.keys.of("schedule", "a")
    data: Any = await manager.store.client.hget(key, "def")
    await manager.store.client.hset(key, mapping={"def": data.replace(b"tests.tick", b"not.here"), "rev": "2"})
    tick = await rewind(manager, "a", 1)
    async with Scheduler(manager):
        await settled(manager, "a")
    record = await manager.job(tick_id("a", tick))
    assert (record.job_class, record.queue, record.max_attempts, record.tags) == ("not.here", "elsewhere", 4, ("x",))
    assert record.payload == {"n": 5}


async def test_a_tick_that_cannot_be_made_is_told_and_the_next_comes(manager: QueueManager) -> None:
    failed = heard(manager, events.ScheduleFailed)
    await manager.schedules.upsert("a", Picky(), every=60)
    await rewind(manager, "a", 1)
    async with Scheduler(manager):
        await settled(manager, "a")
    info = await manager.schedules.get("a")
    assert "no queue today" in info.error
    assert (info.fired, info.missed, len(failed)) == (0, 1, 1)


async def test_a_damaged_definition_harms_no_other(manager: QueueManager) -> None:
    await manager.schedules.upsert("bad", Ticked(), every=60)
    await manager.schedules.upsert("good", Ticked(), every=60)
    await rewind(manager, "bad", 1)
    await rewind(manager, "good", 1)
    await manager.store.client.hset(manager.store.keys.of("schedule", "bad"), mapping={"def": "{", "rev": "2"})
    async with Scheduler(manager):
        await settled(manager, "good")

        async def told() -> bool:
            return "damaged" in (await manager.schedules.get("bad")).error

        await until(told, "the damage is told")
    assert [info.state for info in await manager.schedules.list() if info.name == "bad"] == [ScheduleState.DAMAGED]
    assert await manager.schedules.upsert("bad", Ticked(), every=60)
    assert (await manager.schedules.get("bad")).error == ""


async def test_a_dispatch_that_the_server_cannot_bear_harms_no_other(manager: QueueManager) -> None:
    for n in range(3):
        await manager.schedules.upsert(f"good-{n}", Ticked(), every=86_400)
        await rewind(manager, f"good-{n}", 1)
    await manager.schedules.upsert("bad", Ticked(), every=86_400, queue="spoilt")
    await rewind(manager, "bad", 1)
    spoilt = manager.store.keys.of("ready", "spoilt")
    await manager.store.client.set(spoilt, "somebody wrote here")
    async with Scheduler(manager):
        for n in range(3):
            await settled(manager, f"good-{n}")

        async def told() -> bool:
            return "WRONGTYPE" in (await manager.schedules.get("bad")).error

        await until(told, "the error is told")
        assert (await manager.schedules.get("bad")).fired == 0
        await manager.store.client.delete(spoilt)
        await settled(manager, "bad")
    assert [(await manager.schedules.get(name)).fired for name in ("good-0", "good-1", "good-2", "bad")] == [1, 1, 1, 1]


async def test_a_schedule_whose_hash_is_gone_is_forgotten(manager: QueueManager) -> None:
    await manager.schedules.upsert("a", Ticked(), every=60)
    await rewind(manager, "a", 1)
    await manager.store.client.delete(manager.store.keys.of("schedule", "a"))
    agenda = await manager.store.run(manager.schedules.calls.due("s", 10, {}))
    assert (agenda.schedules, await manager.schedules.count()) == ([], 0)


# --- bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"cron": "61 * * * *"}, SchedulerError, "'61' at character 1"),
        ({"cron": "* * * * *", "every": 5}, SchedulerError, "and not both"),
        ({}, SchedulerError, "needs either"),
        ({"every": 0}, SchedulerError, "0.1 seconds or longer"),
        ({"every": -1}, InvalidOption, "every is -1"),
        ({"every": 60, "jitter": 60}, SchedulerError, "less than the interval"),
        ({"cron": "@daily", "timezone": "Paris"}, SchedulerError, "did you mean Europe/Paris"),
        ({"cron": "@daily", "misfire": "maybe"}, SchedulerError, "skip, once, all"),
        ({"cron": "@daily", "grace": "x"}, InvalidOption, "grace is 'x'"),
        ({"cron": "@daily", "until": "tomorrow"}, SchedulerError, "aware datetime"),
        ({"cron": "@daily", "until": datetime(2030, 1, 1)}, InvalidOption, "no time zone"),  # noqa: DTZ001
        (
            {"cron": "@daily", "start": datetime(2031, 1, 1, tzinfo=UTC), "until": datetime(2030, 1, 1, tzinfo=UTC)},
            SchedulerError,
            "ends .* before it starts",
        ),
        ({"cron": "@daily", "queue": "a b"}, InvalidOption, "queue name"),
        ({"cron": "@daily", "priority": 9}, InvalidOption, "priority is 9"),
        ({"cron": "@daily", "max_attempts": 0}, InvalidOption, "max_attempts"),
        ({"cron": "@daily", "expires_in": 0}, SchedulerError, "more than 0"),
        ({"cron": "@daily", "tags": "x"}, InvalidOption, "tags"),
        ({"cron": "@daily", "colour": "red"}, SchedulerError, "unknown option 'colour'; known are timezone"),
    ],
)
async def test_bad_schedules_are_refused(
    manager: QueueManager, options: dict[str, Any], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        await manager.schedules.upsert("a", Ticked(), **options)
    assert await manager.schedules.count() == 0


async def test_bad_names_and_jobs_are_refused(manager: QueueManager) -> None:
    for name in ("", "a b", "a:b", "{x}", "n" * 129, None, 5):
        with pytest.raises(InvalidOption, match="schedule name"):
            await manager.schedules.upsert(name, Ticked(), every=60)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="instance of a Job class"):
        await manager.schedules.upsert("a", Ticked, every=60)  # type: ignore[arg-type]
    with pytest.raises(SerializationError, match="field 'a'"):
        await manager.schedules.upsert("a", Add(a="x", b=1), every=60)  # type: ignore[arg-type]
    for call in (
        manager.schedules.get,
        manager.schedules.pause,
        manager.schedules.resume,
        manager.schedules.remove,
        manager.schedules.trigger,
    ):
        with pytest.raises(UnknownSchedule, match="there is no schedule 'nope'"):
            await call("nope")
    with pytest.raises(InvalidOption, match="offset is -1"):
        await manager.schedules.list(-1)
    with pytest.raises(JobNotFound):
        await manager.job(tick_id("a", 1))


async def test_a_scheduler_that_cannot_start_says_why(manager: QueueManager) -> None:
    with pytest.raises(SchedulerError, match="did you mean Europe/Paris"):
        Scheduler(manager, timezone="Paris")
    scheduler = Scheduler(manager)
    with pytest.raises(SchedulerError, match="'25' at character 3"):
        scheduler.schedule("0 25 * * *")
    scheduler.schedule("0 2 * * *").name("lonely")
    with pytest.raises(SchedulerError, match=r"lonely.* has no job"):
        await scheduler.start()
    twice = Scheduler(manager)
    twice.schedule("0 2 * * *").job(Add(a=1, b=2))
    twice.schedule("0 3 * * *").job(Add(a=1, b=2))
    with pytest.raises(SchedulerError, match="two schedules are called 'Add'"):
        await twice.start()
    neither = Scheduler(manager)
    neither.schedule().job(Ticked())
    with pytest.raises(SchedulerError, match="either a cron expression or an interval"):
        await neither.start()
    running = Scheduler(manager)
    async with running:
        with pytest.raises(SchedulerError, match="started"):
            running.schedule("* * * * *")
        with pytest.raises(SchedulerError, match="started before"):
            await running.start()
    with pytest.raises(SchedulerError, match="started before"):
        await running.start()
