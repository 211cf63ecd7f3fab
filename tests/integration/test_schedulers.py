"""Several schedulers, and code that changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from rf_jobs import (
    QueueManager,
    Scheduler,
    SchedulerError,
    ScheduleState,
    UnknownSchedule,
    events,
)
from rf_jobs.core import schedules as changes
from rf_jobs.core.doctor import deep_check
from rf_jobs.core.schedules import Firing
from rf_jobs.store.schedule_calls import ORPHAN_MS, Tick
from rf_jobs.words.recurrence import tick_id
from tests.support.jobs import QUEUE
from tests.support.proxy import ReplyCutter
from tests.support.schedules import MINUTE, Ticked, dispatched, heard, now_of, rewind, settled
from tests.support.waiting import until


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as one:
        yield one
        assert (await deep_check(one.store)).problems == []


# --- several schedulers ---------------------------------------------------------------------------------------------------


async def test_many_schedulers_dispatch_each_tick_once(redis_url: str, manager: QueueManager) -> None:
    ticks, starts = heard(manager, events.ScheduleTicked), heard(manager, events.SchedulerStarted)
    for n in range(20):
        await manager.schedules.upsert(f"s{n}", Ticked(n=n), every=60, misfire="all")
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
    await manager.schedules.upsert("a", Ticked(), every=60)
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
    await manager.schedules.upsert("a", Ticked(), every=60)
    await rewind(manager, "a", 1)
    agenda = await manager.store.run(manager.schedules.calls.due("dead", 10, {}))
    assert [due.name for due in agenda.schedules] == ["a"]
    assert (await manager.store.run(manager.schedules.calls.due("other", 10, {}))).schedules == []
    async with Scheduler(manager):
        await until(dispatched(manager), "another scheduler dispatches it", 5)


@pytest.mark.parametrize("script", ["schedule_due", "schedule_fire"])
async def test_lost_replies_neither_lose_a_tick_nor_double_one(
    redis_url: str, manager: QueueManager, script: str
) -> None:
    with ReplyCutter(redis_url.removeprefix("unix://").partition("?")[0]) as proxy:
        async with QueueManager(proxy.url) as far:
            ticks = heard(far, events.ScheduleTicked)
            await manager.schedules.upsert("often", Ticked(), every=0.1, misfire="all")
            async with Scheduler(far):
                for cut in range(1, 13):
                    proxy.cut(far.store.server.script(script).digest.encode())

                    async def lost(cut: int = cut) -> bool:
                        return proxy.cuts == cut

                    await until(lost, "a reply is lost")
                seen = len(ticks)

                async def more(seen: int = seen) -> bool:
                    return len(ticks) > seen + 3

                await until(more, "it goes on")
    times = [tick.tick_ms for tick in ticks]
    assert times == list(range(times[0], times[-1] + 1, 100)), "each is told once, in order"
    info = await manager.schedules.get("often")
    assert (info.fired, info.missed, await dispatched(manager)()) == (len(ticks), 0, len(ticks))
    assert (await manager.queue(QUEUE)).ledger.get("deduplicated", 0) == 0


# --- the code changes -----------------------------------------------------------------------------------------------------


async def age(manager: QueueManager, name: str) -> None:
    """As if no scheduler had named it for longer than it takes to be orphaned."""
    seen = await now_of(manager) - ORPHAN_MS - 1
    await manager.store.client.hset(manager.store.keys.of("schedule", name), "seen", seen)


async def test_what_the_code_has_is_the_codes(manager: QueueManager) -> None:
    scheduler = Scheduler(manager)
    scheduler.schedule("0 3 * * *").job(Ticked()).name("nightly")
    async with scheduler:
        with pytest.raises(SchedulerError, match="defined in the code"):
            await manager.schedules.upsert("nightly", Ticked(), every=60)
        with pytest.raises(SchedulerError, match="remove it there"):
            await manager.schedules.remove("nightly")
        assert await manager.schedules.pause("nightly")
    assert (await manager.schedules.get("nightly")).declared_at is not None


async def test_a_schedule_that_left_the_code_is_orphaned_and_does_not_run(manager: QueueManager) -> None:
    orphaned = heard(manager, events.ScheduleOrphaned)
    old = Scheduler(manager)
    old.every(60).job(Ticked()).name("gone")
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
        scheduler.every(60).job(Ticked()).name("back").misfire("all")
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
        one.every(3600).job(Ticked(n=n)).name("x")
        return one

    async def payload() -> int:
        _, definition = await manager.schedules.reader.definition("x")
        job = manager.schedules.maker.job("x", definition)
        assert isinstance(job, Ticked)
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
    scheduler.schedule("@daily").job(Ticked())
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
    found.schedule("0 3 * * *").job(Ticked()).name("from-a-module")
    scheduler = Scheduler(manager)
    scheduler.adopt(found)
    scheduler.adopt(found)
    async with scheduler:
        assert (await manager.schedules.get("from-a-module")).timezone == "Europe/Paris"
