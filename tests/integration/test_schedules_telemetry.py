"""What schedules leave on the metrics, in the spans and in the logs."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from rf_jobs import QueueManager, Scheduler, Settings, WorkerConfig, WorkerPool
from rf_jobs.model import events as ev
from rf_jobs.model.events import EventBus
from rf_jobs.telemetry import names, telemetry
from rf_jobs.telemetry.cells import Counter, Histogram, MetricStore
from rf_jobs.telemetry.exposition import read_flushed
from rf_jobs.telemetry.schedule_metrics import ScheduleMetrics
from rf_jobs.words.config_settings import JobsSettings, TelemetrySettings
from rf_jobs_exporter.schedules import schedule_readings
from tests.support.jobs import QUEUE, Add


def test_ticks_are_counted_by_what_became_of_them() -> None:
    bus, cells = EventBus(), MetricStore()
    metrics = ScheduleMetrics(bus, cells)
    bus.emit(ev.ScheduleTicked("a", 1, "id", "q", "C", 0.2))
    bus.emit(ev.ScheduleMissed("a", 7))
    bus.emit(ev.ScheduleTaken("a", 1))
    bus.emit(ev.ScheduleOverlapped("a", 2))
    bus.emit(ev.ScheduleFailed("b", 1, "no"))
    metrics.close()
    bus.emit(ev.ScheduleMissed("a", 7))
    found: dict[tuple[str, ...], float] = {}
    for metric, labels, cell in cells.cells():
        if metric is names.SCHEDULE_TICKS:
            assert isinstance(cell, Counter)
            found[labels] = cell.value
        elif metric is names.SCHEDULE_TICK_LAG:
            assert isinstance(cell, Histogram)
            assert sum(cell.counts) == 1
    assert found == {
        ("a", "fired"): 1, ("a", "overlap"): 1, ("a", "missed"): 7, ("a", "duplicate"): 1, ("a", "error"): 0,
        ("b", "fired"): 0, ("b", "overlap"): 0, ("b", "missed"): 0, ("b", "duplicate"): 0, ("b", "error"): 1,
    }  # fmt: skip


def quiet(url: str, **more: Any) -> Settings:
    return Settings(jobs=JobsSettings(redis_url=url), telemetry=TelemetrySettings(**more))


async def test_what_the_exporter_shows(redis_url: str) -> None:
    async with QueueManager(quiet(redis_url)) as manager:
        ticks: asyncio.Queue[ev.ScheduleTicked] = asyncio.Queue()
        manager.bus.subscribe(ev.ScheduleTicked, ticks.put_nowait)
        await manager.schedules.upsert("never", Add(a=1, b=2), cron="0 0 1 1 *")
        await manager.schedules.upsert("rests", Add(a=1, b=2), cron="0 0 1 1 *")
        await manager.schedules.pause("rests")
        await manager.schedules.upsert("often", Add(a=1, b=2), every=0.2)
        async with Scheduler(manager), WorkerPool(WorkerConfig(queues=[QUEUE]), manager):
            tick = await asyncio.wait_for(ticks.get(), 10)
            await manager.wait(tick.job_id, 10)
            survey = await manager.store.run(manager.schedules.calls.survey(1000))
        found = {(reading.metric.name, reading.values): reading.value for reading in schedule_readings(survey)}
    now = survey.now_ms / 1000
    assert found["rf_schedulers", ()] == 1
    assert found["rf_schedules", ()] == 3
    assert found["rf_schedule_next_run_timestamp_seconds", ("never",)] > now
    assert ("rf_schedule_last_run_timestamp_seconds", ("never",)) not in found
    assert ("rf_schedule_next_run_timestamp_seconds", ("rests",)) not in found
    assert now - 10 < found["rf_schedule_last_success_timestamp_seconds", ("often",)] <= now
    assert now - 10 < found["rf_schedule_last_run_timestamp_seconds", ("often",)] <= now
    assert 0 <= found["rf_schedule_lag_seconds", ("often",)] < 5
    assert {found["rf_schedule_missed_total", (name,)] for name in ("never", "rests", "often")} == {0}


async def spans_of(url: str, ratio: float, emit: list[ev.Event]) -> dict[str, Any]:
    memory, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    wanted = quiet(url, metrics=False, sample_ratio=ratio)
    async with QueueManager(wanted) as manager, telemetry(manager, wanted.telemetry, tracer_provider=provider):
        ticks: asyncio.Queue[ev.ScheduleTicked] = asyncio.Queue()
        manager.bus.subscribe(ev.ScheduleTicked, ticks.put_nowait)
        await manager.schedules.upsert("often", Add(a=1, b=2), every=0.2)
        async with Scheduler(manager):
            await asyncio.wait_for(ticks.get(), 10)
        for event in emit:
            manager.bus.emit(event)
    provider.shutdown()
    return {span.name: span for span in memory.get_finished_spans()}


async def test_a_tick_is_a_trace_of_its_own_and_linked_to_its_job(redis_url: str) -> None:
    spans = await spans_of(redis_url, 1.0, [])
    tick, send = spans["tick often"], spans[f"send {QUEUE}"]
    assert (tick.kind, tick.parent) == (SpanKind.PRODUCER, None)
    assert tick.attributes["rf_jobs.schedule.result"] == "fired"
    assert tick.attributes["rf_jobs.schedule.tick"].endswith("+00:00")
    assert send.parent is None
    assert [link.attributes["rf_jobs.link.kind"] for link in tick.links] == ["creation"]


async def test_what_went_wrong_has_a_span_in_any_case(redis_url: str) -> None:
    spans = await spans_of(
        redis_url, 0.0, [ev.ScheduleMissed("late", 3), ev.ScheduleFailed("broken", 1000, "no such day")]
    )
    assert "tick often" not in spans
    assert spans["tick late"].attributes["rf_jobs.schedule.missed"] == 3
    assert {spans[name].status.status_code for name in ("tick late", "tick broken")} == {StatusCode.ERROR}


async def test_what_the_log_says(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    wanted = quiet(redis_url, metrics=False, tracing=False)
    caplog.set_level(logging.INFO, "rf_jobs.lifecycle")
    async with QueueManager(wanted) as manager, telemetry(manager, wanted.telemetry):
        await manager.schedules.upsert("a", Add(a=1, b=2), every=60)
        await manager.schedules.pause("a")
        manager.bus.emit(ev.ScheduleMissed("a", 2))
        manager.bus.emit(ev.ScheduleOrphaned("a"))
    lines = [record.getMessage() for record in caplog.records if record.name == "rf_jobs.lifecycle"]
    assert lines[:3] == ["schedule a was added", "schedule a was paused", "schedule a has missed ticks"]
    assert "does not run" in lines[3]
    assert {record.levelno for record in caplog.records if "missed" in record.getMessage()} == {logging.WARNING}


async def test_what_a_scheduler_counted_reaches_the_exporter(redis_url: str) -> None:
    wanted = quiet(redis_url, tracing=False)
    async with QueueManager(wanted) as manager:
        ticks: asyncio.Queue[ev.ScheduleTicked] = asyncio.Queue()
        async with telemetry(manager, wanted.telemetry):
            manager.bus.subscribe(ev.ScheduleTicked, ticks.put_nowait)
            await manager.schedules.upsert("often", Add(a=1, b=2), every=0.2)
            async with Scheduler(manager):
                await asyncio.wait_for(ticks.get(), 10)
        commands = manager.store.commands
        increments, exemplars = await manager.store.run_many([commands.metrics(), commands.exemplars()])
        fired = (await manager.schedules.get("often")).fired
    found = {(each.metric.name, each.values): each.value for each in read_flushed(increments, exemplars).readings}
    assert found["rf_schedule_ticks_total", ("often", "fired")] == fired
    lags = [each for each in read_flushed(increments, exemplars).readings if each.metric is names.SCHEDULE_TICK_LAG]
    assert sum(lags[0].buckets.values()) == fired
