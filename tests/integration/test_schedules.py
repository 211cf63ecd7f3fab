"""Schedules on a real server: what is dispatched when, what is kept, what is refused."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from rf_jobs import (
    InvalidOption,
    Job,
    JobContext,
    JobNotFound,
    Priority,
    QueueManager,
    Scheduler,
    SchedulerError,
    Schedules,
    ScheduleState,
    SerializationError,
    UnknownSchedule,
    WorkerConfig,
    WorkerPool,
    events,
)
from rf_jobs.core import schedules as changes
from rf_jobs.core.doctor import check_up, deep_check
from rf_jobs.core.schedules import Firing
from rf_jobs.model.sealing import Encrypted
from rf_jobs.store.schedule_calls import ORPHAN_MS, Tick
from rf_jobs.sync import QueueManager as SyncManager
from rf_jobs.sync import SyncSchedules
from rf_jobs.testing.clock import Clock
from rf_jobs.words.config_settings import JobsSettings, SecuritySettings, Settings
from rf_jobs.words.recurrence import tick_id
from tests.support.jobs import QUEUE, Add
from tests.support.waiting import until

MINUTE = 60_000


class Tick2(Job, queue=QUEUE, name="tests.tick"):
    n: int = 0

    async def handle(self, ctx: JobContext) -> int:
        return self.n


class Picky(Job, queue=QUEUE, name="tests.picky"):
    def queue(self) -> str:
        raise RuntimeError("no queue today")

    async def handle(self, ctx: JobContext) -> None:
        return


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as one:
        yield one
        assert (await deep_check(one.store)).problems == []


def heard(manager: QueueManager, kind: type[events.Event]) -> list[Any]:
    found: list[Any] = []
    manager.bus.subscribe(kind, found.append)
    return found


async def now_of(manager: QueueManager) -> int:
    return await manager.store.run(manager.store.commands.time())


async def rewind(manager: QueueManager, name: str, ticks: int, interval: int = MINUTE) -> int:
    """As if no scheduler had been there for so many ticks; answers with the first of them."""
    key, names = manager.store.keys.of("schedule", name), manager.store.keys.of("schedules")
    first = (await now_of(manager)) // interval * interval - (ticks - 1) * interval
    await manager.store.client.hset(key, mapping={"next": first, "due": first})
    await manager.store.client.zadd(names, {name: first})
    return first


def dispatched(manager: QueueManager) -> Callable[[], Awaitable[int]]:
    async def look() -> int:
        counts = await manager.counts(QUEUE)
        return sum(counts.values())

    return look


async def settled(manager: QueueManager, name: str) -> None:
    """Until the schedule waits for a tick to come."""

    async def look() -> bool:
        info = await manager.schedules.get(name)
        return info.next_run is not None and info.next_run > datetime.now(UTC)

    await until(look, f"{name} waits for what is to come")


# --- what a schedule is ---------------------------------------------------------------------------------------------------


async def test_a_schedule_of_the_code_runs(manager: QueueManager) -> None:
    scheduler = Scheduler(manager)
    scheduler.every(0.2).job(Tick2(n=7)).name("often").tags("nightly").priority("high").max_attempts(2).expires_in(60)
    ticks = heard(manager, events.ScheduleTicked)
    async with scheduler, WorkerPool(WorkerConfig(queues=[QUEUE]), manager):
        assert scheduler.is_running
        assert scheduler.stalled() == ""

        async def three() -> bool:
            return len(ticks) >= 3

        await until(three, "three ticks")
        assert await manager.wait(ticks[0].job_id, 10) == 7
    assert scheduler.stalled() == "the scheduler is not running"
    assert [b.tick_ms - a.tick_ms for a, b in pairwise(ticks)] == [200] * (len(ticks) - 1)
    assert all(UUID(tick.job_id) == tick_id("often", tick.tick_ms) for tick in ticks)
    record = await manager.job(ticks[0].job_id)
    assert (record.tags, record.priority, record.max_attempts) == (("nightly",), Priority.HIGH, 2)
    info = await manager.schedules.get("often")
    assert info.last_success is not None
    assert info.last_run is not None
    assert (info.last_outcome, info.source, info.fired, info.missed) == ("completed", "code", len(ticks), 0)
    assert info.last_job is not None
    assert 0 <= info.lag < 5
    assert await manager.schedules.schedulers() == 0


async def test_what_is_said_again_changes_nothing(manager: QueueManager) -> None:
    added, changed = heard(manager, events.ScheduleAdded), heard(manager, events.ScheduleChanged)
    assert await manager.schedules.upsert("a", Tick2(n=1), cron="0 3 * * *", timezone="Europe/Paris", tags=("x",))
    first = await manager.schedules.get("a")
    assert not await manager.schedules.upsert("a", Tick2(n=1), cron="0 3 * * *", timezone="Europe/Paris", tags=["x"])
    assert await manager.schedules.get("a") == first
    assert first.when == "0 3 * * * (Europe/Paris)"
    assert await manager.schedules.upsert("a", Tick2(n=2), cron="0 3 * * *", timezone="Europe/Paris")
    assert ([e.schedule for e in added], [e.schedule for e in changed]) == (["a"], ["a"])
    assert await manager.schedules.count() == 1


async def test_another_job_keeps_the_tick_and_another_time_does_not(manager: QueueManager) -> None:
    await manager.schedules.upsert("a", Tick2(n=1), every=60)
    missed = await rewind(manager, "a", 3)
    await manager.schedules.upsert("a", Tick2(n=2), every=60)
    facts = await manager.store.client.hgetall(manager.store.keys.of("schedule", "a"))
    assert int(facts[b"next"]) == missed
    await manager.schedules.upsert("a", Tick2(n=2), every=120)
    info = await manager.schedules.get("a")
    assert info.next_run is not None
    assert info.next_run > datetime.now(UTC)


async def test_pause_resume_and_what_came_meanwhile(manager: QueueManager) -> None:
    told = heard(manager, events.ScheduleEvent)
    await manager.schedules.upsert("a", Tick2(), every=60)
    assert await manager.schedules.pause("a")
    assert not await manager.schedules.pause("a")
    assert (await manager.schedules.get("a")).state == ScheduleState.PAUSED
    await manager.schedules.upsert("a", Tick2(n=1), every=30)
    assert (await manager.schedules.get("a")).state == ScheduleState.PAUSED
    assert (await manager.schedules.get("a")).next_run is None
    assert await manager.schedules.resume("a")
    assert not await manager.schedules.resume("a")
    info = await manager.schedules.get("a")
    assert info.next_run is not None
    assert (info.state, info.missed) == (ScheduleState.ACTIVE, 0)
    await manager.schedules.remove("a")
    assert [type(event).__name__ for event in told] == [
        "ScheduleAdded", "SchedulePaused", "ScheduleChanged", "ScheduleResumed", "ScheduleRemoved",
    ]  # fmt: skip


async def test_a_paused_schedule_does_not_run_but_may_be_triggered(manager: QueueManager) -> None:
    triggered = heard(manager, events.ScheduleTriggered)
    await manager.schedules.upsert("a", Tick2(n=3), every=0.1)
    await manager.schedules.pause("a")
    async with Scheduler(manager), WorkerPool(WorkerConfig(queues=[QUEUE]), manager):
        job_id = await manager.schedules.trigger("a")
        assert await manager.wait(job_id, 10) == 3
    assert [event.job_id for event in triggered] == [str(job_id)]
    info = await manager.schedules.get("a")
    assert (info.fired, info.last_job, info.last_outcome, info.state) == (1, job_id, "completed", ScheduleState.PAUSED)


async def test_a_schedule_ends(manager: QueueManager) -> None:
    end = datetime.now(UTC) + timedelta(seconds=1)
    await manager.schedules.upsert("a", Tick2(), every=0.3, until=end)
    async with Scheduler(manager):

        async def ended() -> bool:
            return (await manager.schedules.get("a")).state == ScheduleState.ENDED

        await until(ended, "the schedule ends")
    info = await manager.schedules.get("a")
    assert info.next_run is None
    assert info.fired in (3, 4)
    assert info.last_tick is not None
    assert info.last_tick <= end
    with pytest.raises(SchedulerError, match="would never run"):
        await manager.schedules.upsert("b", Tick2(), every=60, until=datetime.now(UTC) - timedelta(days=1))


async def test_start_holds_it_back(manager: QueueManager) -> None:
    later = datetime.now(UTC) + timedelta(hours=3)
    await manager.schedules.upsert("a", Tick2(), every=7, start=later)
    info = await manager.schedules.get("a")
    assert info.next_run is not None
    assert abs(info.next_run - later) < timedelta(seconds=0.01)


async def test_a_schedule_added_at_run_time_is_noticed_at_once(manager: QueueManager) -> None:
    ticks = heard(manager, events.ScheduleTicked)
    await manager.schedules.upsert("far", Tick2(), cron="0 0 1 1 *")
    async with Scheduler(manager):
        await asyncio.sleep(0)
        await manager.schedules.upsert("near", Tick2(), every=0.5)

        async def ticked() -> bool:
            return bool(ticks)

        await until(ticked, "a tick, long before the scheduler would have looked again", 4)
    assert ticks[0].schedule == "near"


# --- ticks that came late -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("misfire", "runs", "missed"), [("skip", 0, 5), ("once", 1, 4), ("all", 5, 0)])
async def test_misfires(manager: QueueManager, misfire: str, runs: int, missed: int) -> None:
    passed_over = heard(manager, events.ScheduleMissed)
    await manager.schedules.upsert("a", Tick2(), every=600, misfire=misfire, grace=0)
    first = await rewind(manager, "a", 5, 600_000)
    await asyncio.sleep(0.002)  # the last of them is late too
    async with Scheduler(manager):
        await settled(manager, "a")
    info = await manager.schedules.get("a")
    assert (info.fired, info.missed, await dispatched(manager)()) == (runs, missed, runs)
    assert sum(event.count for event in passed_over) == missed
    if misfire == "all":
        for n in range(5):
            assert (await manager.job(tick_id("a", first + n * 600_000))).state == "ready"
    if misfire == "once":
        assert (await manager.job(tick_id("a", first + 4 * 600_000))).state == "ready"


async def test_within_its_grace_each_tick_runs(manager: QueueManager) -> None:
    await manager.schedules.upsert("a", Tick2(), every=60, misfire="skip", grace=3600)
    await rewind(manager, "a", 5)
    async with Scheduler(manager):
        await settled(manager, "a")
    info = await manager.schedules.get("a")
    assert (info.fired, info.missed) == (5, 0)
    assert info.lag < 60


class Knows(Job, queue=QUEUE, name="tests.knows"):
    async def handle(self, ctx: JobContext) -> tuple[str, str]:
        return ctx.schedule, str(ctx.tick)


async def test_a_job_knows_its_schedule_and_its_tick(manager: QueueManager) -> None:
    await manager.schedules.upsert("a", Knows(), every=60, misfire="all")
    first = await rewind(manager, "a", 3)
    async with Scheduler(manager), WorkerPool(WorkerConfig(queues=[QUEUE]), manager):
        await settled(manager, "a")
        for n in range(3):
            tick = first + n * MINUTE
            found = await manager.wait(tick_id("a", tick), 10)
            assert found == ["a", str(datetime.fromtimestamp(tick / 1000, UTC))]
        assert await manager.wait(await manager.dispatch(Knows()), 10) == ["", "None"]


class Alone(Job, queue=QUEUE, name="tests.alone", unique_for=3600, unique_until="done"):
    async def handle(self, ctx: JobContext) -> None:
        return


async def test_a_unique_job_does_not_overlap_itself(manager: QueueManager) -> None:
    overlapped, failed = heard(manager, events.ScheduleOverlapped), heard(manager, events.ScheduleFailed)
    await manager.schedules.upsert("a", Alone(), every=60, misfire="all")
    first = await rewind(manager, "a", 3)
    async with Scheduler(manager):
        await settled(manager, "a")
        info = await manager.schedules.get("a")
        assert (info.fired, info.overlaps, info.missed, info.error) == (1, 2, 0, "")
        assert info.last_job == tick_id("a", first)
        assert [event.tick_ms for event in overlapped] == [first + MINUTE, first + 2 * MINUTE]
        async with WorkerPool(WorkerConfig(queues=[QUEUE]), manager):
            await manager.wait(tick_id("a", first), 10)
        with pytest.raises(JobNotFound):
            await manager.job(tick_id("a", first + MINUTE))
        await manager.schedules.trigger("a")
        with pytest.raises(SchedulerError, match="refused"):
            await manager.schedules.trigger("a")
    assert failed == []


async def test_a_clock_that_a_test_moves_moves_schedules_too(redis_url: str) -> None:
    with Clock(redis_url) as clock:
        clock.freeze(datetime(2026, 10, 24, 12, tzinfo=UTC))
        async with QueueManager(redis_url) as manager:
            ticks = heard(manager, events.ScheduleTicked)
            scheduler = Scheduler(manager, timezone="Europe/Berlin")
            scheduler.schedule("30 2 * * *").job(Tick2()).name("night")
            async with scheduler:
                for day in range(1, 4):
                    clock.advance(timedelta(days=1))

                    async def ticked(day: int = day) -> bool:
                        return len(ticks) == day

                    await until(ticked, f"the tick of day {day}")
    times = [datetime.fromtimestamp(tick.tick_ms / 1000, UTC) for tick in ticks]
    assert [f"{time:%d %H:%M}" for time in times] == ["25 00:30", "26 01:30", "27 01:30"]


# --- several schedulers ---------------------------------------------------------------------------------------------------


async def test_many_schedulers_dispatch_each_tick_once(redis_url: str, manager: QueueManager) -> None:
    ticks, starts = heard(manager, events.ScheduleTicked), heard(manager, events.SchedulerStarted)
    for n in range(20):
        await manager.schedules.upsert(f"s{n}", Tick2(n=n), every=60, misfire="all")
        await rewind(manager, f"s{n}", 10)
    async with AsyncExitStack() as stack:
        for _ in range(4):
            other = await stack.enter_async_context(QueueManager(redis_url, bus=manager.bus))
            await stack.enter_async_context(Scheduler(other))
        for n in range(20):
            await settled(manager, f"s{n}")
        assert await manager.schedules.schedulers() == 4
    counts = Counter((tick.schedule, tick.tick_ms) for tick in ticks)
    assert set(counts.values()) == {1}
    assert await dispatched(manager)() == len(ticks)
    assert len(ticks) >= 200
    assert len(starts) == 4
    queue = await manager.queue(QUEUE)
    assert (queue.ledger["dispatched"], queue.ledger.get("deduplicated", 0)) == (len(ticks), 0)


async def fire_twice(manager: QueueManager, second: str) -> list[list[tuple[str, str]]]:
    await manager.schedules.upsert("a", Tick2(), every=60)
    tick = await rewind(manager, "a", 1)
    info = await manager.schedules.get("a")
    _, definition = await manager.schedules.reader.definition("a")
    maker = manager.schedules.maker
    job = maker.make("a", definition, maker.job("a", definition), tick_id("a", tick), tick)
    one = Tick("a", tick, info.revision, tick, tick + MINUTE, tick + MINUTE, 0, "", job.draft, job.event.job_class)
    calls = manager.schedules.calls
    return [
        await manager.lifecycle.apply(changes.fire(calls, scheduler, [Firing(one, job)]))
        for scheduler in ("s1", second)
    ]


async def test_a_call_that_is_sent_again_says_the_same(manager: QueueManager) -> None:
    first, again = await fire_twice(manager, "s1")
    assert (first[0][0], again[0][0]) == ("fired", "fired")
    assert first == again
    assert (await manager.schedules.get("a")).fired == 1
    assert await dispatched(manager)() == 1


async def test_who_comes_second_finds_it_done(manager: QueueManager) -> None:
    taken = heard(manager, events.ScheduleTaken)
    first, second = await fire_twice(manager, "s2")
    assert (first[0][0], second[0][0]) == ("fired", "taken")
    assert len(taken) == 1
    assert await dispatched(manager)() == 1


async def test_what_a_dead_scheduler_had_in_hand_another_does(manager: QueueManager) -> None:
    await manager.schedules.upsert("a", Tick2(), every=60)
    await rewind(manager, "a", 1)
    agenda = await manager.store.run(manager.schedules.calls.due("dead", 10, {}))
    assert [due.name for due in agenda.schedules] == ["a"]
    assert (await manager.store.run(manager.schedules.calls.due("other", 10, {}))).schedules == []
    async with Scheduler(manager):
        await until(dispatched(manager), "another scheduler dispatches it", 5)


# --- the code changes -----------------------------------------------------------------------------------------------------


async def age(manager: QueueManager, name: str) -> None:
    """As if no scheduler had named it for longer than it takes to be orphaned."""
    seen = await now_of(manager) - ORPHAN_MS - 1
    await manager.store.client.hset(manager.store.keys.of("schedule", name), "seen", seen)


async def test_what_the_code_has_is_the_codes(manager: QueueManager) -> None:
    scheduler = Scheduler(manager)
    scheduler.schedule("0 3 * * *").job(Tick2()).name("nightly")
    async with scheduler:
        with pytest.raises(SchedulerError, match="defined in the code"):
            await manager.schedules.upsert("nightly", Tick2(), every=60)
        with pytest.raises(SchedulerError, match="remove it there"):
            await manager.schedules.remove("nightly")
        assert await manager.schedules.pause("nightly")
    assert (await manager.schedules.get("nightly")).declared_at is not None


async def test_a_schedule_that_left_the_code_is_orphaned_and_does_not_run(manager: QueueManager) -> None:
    orphaned = heard(manager, events.ScheduleOrphaned)
    old = Scheduler(manager)
    old.every(60).job(Tick2()).name("gone")
    async with old:
        pass
    await rewind(manager, "gone", 1)
    await age(manager, "gone")
    async with Scheduler(manager):

        async def told() -> bool:
            return bool(orphaned)

        await until(told, "it is found orphaned")
    info = await manager.schedules.get("gone")
    assert (info.state, info.fired, info.next_run) == (ScheduleState.ORPHANED, 0, None)
    assert await dispatched(manager)() == 0
    await manager.schedules.remove("gone")
    with pytest.raises(UnknownSchedule):
        await manager.schedules.get("gone")


async def test_an_orphan_whose_code_comes_back_goes_on(manager: QueueManager) -> None:
    for round_number in range(2):
        scheduler = Scheduler(manager)
        scheduler.every(60).job(Tick2()).name("back").misfire("all")
        async with scheduler:
            if round_number:
                await until(dispatched(manager), "what came meanwhile is run")
        if not round_number:
            await rewind(manager, "back", 2)
            await age(manager, "back")
            async with Scheduler(manager):

                async def orphaned() -> bool:
                    return (await manager.schedules.get("back")).state == ScheduleState.ORPHANED

                await until(orphaned, "it is orphaned")
    assert (await manager.schedules.get("back")).state == ScheduleState.ACTIVE


async def test_the_newest_code_that_lives_is_right(redis_url: str, manager: QueueManager) -> None:
    def scheduler(on: QueueManager, n: int) -> Scheduler:
        one = Scheduler(on)
        one.every(3600).job(Tick2(n=n)).name("x")
        return one

    async def payload() -> int:
        _, definition = await manager.schedules.reader.definition("x")
        job = manager.schedules.maker.job("x", definition)
        assert isinstance(job, Tick2)
        return job.n

    async with QueueManager(redis_url) as other, scheduler(manager, 1) as old:
        async with scheduler(other, 2):
            assert await payload() == 2
            old._declaration._touched = float("-inf")
            await old._declaration.touch_now_and_then()
            assert await payload() == 2
        old._declaration._touched = float("-inf")
        await old._declaration.touch_now_and_then()
        assert await payload() == 1
        await manager.store.client.flushall()
        old._declaration._touched = float("-inf")
        await old._declaration.touch_now_and_then()
        assert await payload() == 1


async def test_a_scheduler_without_a_manager_makes_one(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RF_JOBS_REDIS_URL", redis_url)
    monkeypatch.setenv("RF_JOBS_SCHEDULER_TIMEZONE", "Asia/Tokyo")
    scheduler = Scheduler()
    scheduler.schedule("@daily").job(Tick2())
    async with scheduler:
        manager = scheduler.manager
        assert (await manager.schedules.get("tick")).timezone == "Asia/Tokyo"
    assert manager.store.closed
    broken = Scheduler()
    broken.schedule("@daily")
    with pytest.raises(SchedulerError, match="has no job"):
        async with broken:
            pass
    assert broken.manager.store.closed


async def test_modules_may_have_schedulers(manager: QueueManager) -> None:
    found = Scheduler(timezone="Europe/Paris")
    found.schedule("0 3 * * *").job(Tick2()).name("from-a-module")
    scheduler = Scheduler(manager)
    scheduler.adopt(found)
    scheduler.adopt(found)
    async with scheduler:
        assert (await manager.schedules.get("from-a-module")).timezone == "Europe/Paris"


# --- what can't be dispatched ---------------------------------------------------------------------------------------------


async def test_a_class_that_is_unknown_here_is_dispatched_as_it_was_defined(manager: QueueManager) -> None:
    await manager.schedules.upsert(
        "a", Tick2(n=5), every=60, queue="elsewhere", priority="low", max_attempts=4, tags=["x"]
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
    await manager.schedules.upsert("bad", Tick2(), every=60)
    await manager.schedules.upsert("good", Tick2(), every=60)
    await rewind(manager, "bad", 1)
    await rewind(manager, "good", 1)
    await manager.store.client.hset(manager.store.keys.of("schedule", "bad"), mapping={"def": "{", "rev": "2"})
    async with Scheduler(manager):
        await settled(manager, "good")

        async def told() -> bool:
            return "damaged" in (await manager.schedules.get("bad")).error

        await until(told, "the damage is told")
    assert [info.state for info in await manager.schedules.list() if info.name == "bad"] == [ScheduleState.DAMAGED]
    assert await manager.schedules.upsert("bad", Tick2(), every=60)
    assert (await manager.schedules.get("bad")).error == ""


async def test_a_schedule_whose_hash_is_gone_is_forgotten(manager: QueueManager) -> None:
    await manager.schedules.upsert("a", Tick2(), every=60)
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
        await manager.schedules.upsert("a", Tick2(), **options)
    assert await manager.schedules.count() == 0


async def test_bad_names_and_jobs_are_refused(manager: QueueManager) -> None:
    for name in ("", "a b", "a:b", "{x}", "n" * 129, None, 5):
        with pytest.raises(InvalidOption, match="schedule name"):
            await manager.schedules.upsert(name, Tick2(), every=60)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="instance of a Job class"):
        await manager.schedules.upsert("a", Tick2, every=60)  # type: ignore[arg-type]
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
    neither.schedule().job(Tick2())
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


# --- from code without a loop; with keys ----------------------------------------------------------------------------------


def test_the_synchronous_twin_has_the_same_names() -> None:
    def names(kind: type) -> set[str]:
        return {name for name, value in vars(kind).items() if callable(value) and not name.startswith("_")}

    assert names(SyncSchedules) == names(Schedules)


def test_the_synchronous_twin(redis_url: str) -> None:
    with SyncManager(redis_url) as manager:
        assert manager.schedules.upsert("a", Tick2(n=1), every=60, tags=["x"])
        assert not manager.schedules.upsert("a", Tick2(n=1), every=60, tags=["x"])
        assert [info.name for info in manager.schedules.list()] == ["a"]
        assert (manager.schedules.count(), manager.schedules.schedulers()) == (1, 0)
        assert manager.schedules.pause("a")
        assert manager.schedules.resume("a")
        assert manager.job(manager.schedules.trigger("a")).tags == ("x",)
        assert manager.schedules.get("a").fired == 1
        manager.schedules.remove("a")
        with pytest.raises(UnknownSchedule):
            manager.schedules.get("a")


class Secret(Job, queue=QUEUE, name="tests.secret"):
    word: Encrypted[str]

    async def handle(self, ctx: JobContext) -> str:
        return self.word


async def test_a_sealed_payload_lies_sealed_and_runs(redis_url: str) -> None:
    keys = (f"k1:{base64.b64encode(bytes(32)).decode()}",)
    wanted = Settings(
        jobs=JobsSettings(redis_url=redis_url), security=SecuritySettings(encryption_keys=keys, signing_keys=keys)
    )
    async with QueueManager(wanted) as manager:
        await manager.schedules.upsert("a", Secret(word="swordfish"), every=60, misfire="all")
        await manager.schedules.upsert("a", Secret(word="swordfish"), every=60, misfire="all")
        tick = await rewind(manager, "a", 2)
        kept = await manager.store.client.hgetall(manager.store.keys.of("schedule", "a"))
        assert "swordfish" not in str(kept)
        async with Scheduler(manager), WorkerPool(WorkerConfig(queues=[QUEUE]), manager):
            for n in range(2):

                async def there(n: int = n) -> bool:
                    job = str(tick_id("a", tick + n * MINUTE))
                    return await manager.store.run(manager.store.commands.exists("job", job))

                await until(there, "the tick's job")
                assert await manager.wait(tick_id("a", tick + n * MINUTE), 10) == "swordfish"


async def test_without_the_key_others_may_run_it(redis_url: str) -> None:
    keys = (f"k1:{base64.b64encode(bytes(32)).decode()}",)
    failed: list[events.ScheduleFailed] = []
    wanted = Settings(jobs=JobsSettings(redis_url=redis_url), security=SecuritySettings(encryption_keys=keys))
    async with QueueManager(wanted) as manager, QueueManager(redis_url) as blind:
        blind.bus.subscribe(events.ScheduleFailed, failed.append)
        await manager.schedules.upsert("a", Secret(word="swordfish"), every=60, misfire="all")
        await rewind(manager, "a", 1)
        async with Scheduler(blind):

            async def told() -> bool:
                return bool(failed)

            await until(told, "the scheduler without a key says so")
        info = await manager.schedules.get("a")
        assert (info.fired, info.missed, info.state) == (0, 0, ScheduleState.ACTIVE)
        assert "key" in info.error
        async with Scheduler(manager):
            await until(dispatched(manager), "the one with the key runs it", 15)
    assert "swordfish" not in str(failed)


async def test_the_doctor_misses_a_scheduler(manager: QueueManager) -> None:
    async def found() -> tuple[str, str]:
        (check,) = [check for check in await check_up(manager.store) if check.name == "schedules"]
        return check.status, check.what

    assert await found() == ("ok", "there are none")
    await manager.schedules.upsert("a", Tick2(), every=3600)
    assert await found() == ("fail", "1 schedules and no scheduler: nothing of it runs")
    async with Scheduler(manager):

        async def seen() -> bool:
            return await manager.schedules.schedulers() == 1

        await until(seen, "the scheduler says that it lives")
        assert await found() == ("ok", "1 schedules, 1 schedulers")
    await rewind(manager, "a", 5)
    await manager.store.run(manager.schedules.calls.due("stuck", 1, {}))
    await rewind(manager, "a", 5)
    status, what = await found()
    assert (status, "late" in what) == ("warn", True)
