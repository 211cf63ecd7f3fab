"""Schedules on a real server: what is dispatched when, and what is kept of it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest

from rf_jobs import (
    Job,
    JobContext,
    JobNotFound,
    Priority,
    QueueManager,
    Scheduler,
    SchedulerError,
    Schedules,
    ScheduleState,
    UnknownSchedule,
    WorkerConfig,
    WorkerPool,
    events,
)
from rf_jobs.core.doctor import check_up, deep_check
from rf_jobs.model.sealing import Encrypted
from rf_jobs.sync import QueueManager as SyncManager
from rf_jobs.sync import SyncSchedules
from rf_jobs.testing.clock import Clock
from rf_jobs.words.config_settings import JobsSettings, SecuritySettings, Settings
from rf_jobs.words.recurrence import tick_id
from tests.support.jobs import QUEUE
from tests.support.schedules import MINUTE, Ticked, dispatched, heard, rewind, settled
from tests.support.waiting import until


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as one:
        yield one
        assert (await deep_check(one.store)).problems == []


# --- what a schedule is ---------------------------------------------------------------------------------------------------


async def test_a_schedule_of_the_code_runs(manager: QueueManager) -> None:
    scheduler = Scheduler(manager)
    scheduler.every(0.2).job(Ticked(n=7)).name("often").tags("nightly").priority("high").max_attempts(2).expires_in(60)
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
    assert await manager.schedules.upsert("a", Ticked(n=1), cron="0 3 * * *", timezone="Europe/Paris", tags=("x",))
    first = await manager.schedules.get("a")
    assert not await manager.schedules.upsert("a", Ticked(n=1), cron="0 3 * * *", timezone="Europe/Paris", tags=["x"])
    assert await manager.schedules.get("a") == first
    assert first.when == "0 3 * * * (Europe/Paris)"
    assert await manager.schedules.upsert("a", Ticked(n=2), cron="0 3 * * *", timezone="Europe/Paris")
    assert ([e.schedule for e in added], [e.schedule for e in changed]) == (["a"], ["a"])
    assert await manager.schedules.count() == 1


async def test_another_job_keeps_the_tick_and_another_time_does_not(manager: QueueManager) -> None:
    await manager.schedules.upsert("a", Ticked(n=1), every=60)
    missed = await rewind(manager, "a", 3)
    await manager.schedules.upsert("a", Ticked(n=2), every=60)
    facts = await manager.store.client.hgetall(manager.store.keys.of("schedule", "a"))
    assert int(facts[b"next"]) == missed
    await manager.schedules.upsert("a", Ticked(n=2), every=120)
    info = await manager.schedules.get("a")
    assert info.next_run is not None
    assert info.next_run > datetime.now(UTC)


async def test_pause_resume_and_what_came_meanwhile(manager: QueueManager) -> None:
    told = heard(manager, events.ScheduleEvent)
    await manager.schedules.upsert("a", Ticked(), every=60)
    assert await manager.schedules.pause("a")
    assert not await manager.schedules.pause("a")
    assert (await manager.schedules.get("a")).state == ScheduleState.PAUSED
    await manager.schedules.upsert("a", Ticked(n=1), every=30)
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
    await manager.schedules.upsert("a", Ticked(n=3), every=0.1)
    await manager.schedules.pause("a")
    async with Scheduler(manager), WorkerPool(WorkerConfig(queues=[QUEUE]), manager):
        job_id = await manager.schedules.trigger("a")
        assert await manager.wait(job_id, 10) == 3
    assert [event.job_id for event in triggered] == [str(job_id)]
    info = await manager.schedules.get("a")
    assert (info.fired, info.last_job, info.last_outcome, info.state) == (1, job_id, "completed", ScheduleState.PAUSED)


async def test_a_schedule_ends(manager: QueueManager) -> None:
    end = datetime.now(UTC) + timedelta(seconds=1)
    await manager.schedules.upsert("a", Ticked(), every=0.3, until=end)
    async with Scheduler(manager):

        async def ended() -> bool:
            return (await manager.schedules.get("a")).state == ScheduleState.ENDED

        await until(ended, "the schedule ends")
    info = await manager.schedules.get("a")
    assert info.next_run is None
    assert info.fired in (3, 4)
    assert info.last_tick is not None
    assert info.last_tick <= end
    assert not await manager.schedules.upsert("a", Ticked(), every=0.3, until=end)
    with pytest.raises(SchedulerError, match="would never run"):
        await manager.schedules.upsert("b", Ticked(), every=60, until=datetime.now(UTC) - timedelta(days=1))


async def test_start_holds_it_back(manager: QueueManager) -> None:
    later = datetime.now(UTC) + timedelta(hours=3)
    await manager.schedules.upsert("a", Ticked(), every=7, start=later)
    info = await manager.schedules.get("a")
    assert info.next_run is not None
    assert abs(info.next_run - later) < timedelta(seconds=0.01)


async def test_a_schedule_added_at_run_time_is_noticed_at_once(manager: QueueManager) -> None:
    ticks = heard(manager, events.ScheduleTicked)
    await manager.schedules.upsert("far", Ticked(), cron="0 0 1 1 *")
    async with Scheduler(manager):
        await asyncio.sleep(0)
        await manager.schedules.upsert("near", Ticked(), every=0.5)

        async def ticked() -> bool:
            return bool(ticks)

        await until(ticked, "a tick, long before the scheduler would have looked again", 4)
    assert ticks[0].schedule == "near"


# --- ticks that came late -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("misfire", "runs", "missed"), [("skip", 0, 5), ("once", 1, 4), ("all", 5, 0)])
async def test_misfires(manager: QueueManager, misfire: str, runs: int, missed: int) -> None:
    passed_over = heard(manager, events.ScheduleMissed)
    await manager.schedules.upsert("a", Ticked(), every=600, misfire=misfire, grace=0)
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
    await manager.schedules.upsert("a", Ticked(), every=60, misfire="skip", grace=3600)
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
            scheduler.schedule("30 2 * * *").job(Ticked()).name("night")
            async with scheduler:
                for day in range(1, 4):
                    clock.advance(timedelta(days=1))

                    async def ticked(day: int = day) -> bool:
                        return len(ticks) == day

                    await until(ticked, f"the tick of day {day}")
    times = [datetime.fromtimestamp(tick.tick_ms / 1000, UTC) for tick in ticks]
    assert [f"{time:%d %H:%M}" for time in times] == ["25 00:30", "26 01:30", "27 01:30"]


# --- from code without a loop; with keys ----------------------------------------------------------------------------------


def test_the_synchronous_twin_has_the_same_names() -> None:
    def names(kind: type) -> set[str]:
        return {name for name, value in vars(kind).items() if callable(value) and not name.startswith("_")}

    assert names(SyncSchedules) == names(Schedules)


def test_the_synchronous_twin(redis_url: str) -> None:
    with SyncManager(redis_url) as manager:
        assert manager.schedules.upsert("a", Ticked(n=1), every=60, tags=["x"])
        assert not manager.schedules.upsert("a", Ticked(n=1), every=60, tags=["x"])
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
    await manager.schedules.upsert("a", Ticked(), every=3600)
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


# --- somebody edited the store --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"), [("next", "x"), ("next", "nan"), ("next", "1e400"), ("fired", "x"), ("due", "x"), ("def", b"\xff")]
)  # fmt: skip
async def test_an_edit_of_one_schedule_does_not_stop_the_others(
    manager: QueueManager, field: str, value: str | bytes
) -> None:
    for name in ("broken", "sound"):
        await manager.schedules.upsert(name, Ticked(n=1), every=0.2)
    await manager.store.client.hset("{rf}:schedule:broken", field, value)
    ticks = heard(manager, events.ScheduleTicked)
    async with Scheduler(manager):

        async def three() -> bool:
            return len([tick for tick in ticks if tick.schedule == "sound"]) >= 3

        await until(three, "three ticks of the sound one")
        assert {each.name for each in await manager.schedules.list()} == {"broken", "sound"}


async def test_a_schedule_that_is_put_again_takes_the_place_of_what_was_damaged(manager: QueueManager) -> None:
    await manager.schedules.upsert("one", Ticked(n=1), every=0.2)
    await manager.store.client.hset("{rf}:schedule:one", "def", "{")
    ticks = heard(manager, events.ScheduleTicked)
    async with Scheduler(manager):

        async def troubled() -> bool:
            return "damaged" in (await manager.schedules.get("one")).error

        await until(troubled, "the scheduler says that it is damaged")
        assert ticks == []
        await manager.schedules.upsert("one", Ticked(n=1), every=0.2)

        async def ticked() -> bool:
            return bool(ticks)

        await until(ticked, "it runs again")
