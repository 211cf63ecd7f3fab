"""Spans, metrics and log lines of batches, dependencies and limits."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
from opentelemetry.trace import StatusCode

from rf_jobs import Batch, Chain, QueueManager, Settings, WorkerConfig, WorkerPool
from rf_jobs.model import events as ev
from rf_jobs.telemetry.cells import Counter, MetricStore
from rf_jobs.telemetry.logs import LifecycleLog
from rf_jobs.telemetry.workflow_metrics import WorkflowMetrics
from rf_jobs.words.config_settings import JobsSettings
from rf_jobs_exporter.workflows import workflow_readings
from tests.support.flow_jobs import QUEUE, Limited, Note, gate, mended, seen
from tests.support.tracing import Traced, attribute, context, conversation, lab, linked


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    seen.clear()
    gate.clear()
    mended.clear()
    async with QueueManager(Settings(jobs=JobsSettings(redis_url=redis_url))) as running:
        yield running


async def test_a_batch_has_a_span_and_its_members_a_conversation(redis_url: str) -> None:
    async with lab(redis_url) as it:
        batch = Batch([Traced()]).then(Traced())
        await batch.dispatch(it.manager)
        await it.until(ev.BatchFinished)
        await it.until(ev.JobCompleted, 2)
        span = await it.span("batch batch")
        process = await it.many("process traced", 2)
    assert attribute(span, "rf_jobs.batch.state") == "completed"
    assert conversation(span) == str(batch.id)
    assert {conversation(each) for each in process} == {str(batch.id)}


async def test_a_failed_chain_is_an_error_and_a_released_step_is_linked(redis_url: str) -> None:
    async with lab(redis_url) as it:
        parent = await it.manager.dispatch(Traced())
        child = await it.manager.dispatch(Traced()).depends_on(parent)
        await it.until(ev.JobUnblocked)
        await it.manager.wait(child, 10)
        release = await it.span("release traced")
        sends = await it.many("send traced", 2)
        chain = Chain([Traced(do="fail"), Traced()])
        await chain.dispatch(it.manager)
        assert await chain.wait(10) == "failed"
        span = await it.span("batch chain")
    assert linked(release)["creation"] in [context(send) for send in sends]
    assert span.status.status_code is StatusCode.ERROR
    assert attribute(span, "rf_jobs.batch.failed") == 2


async def test_metrics_of_batches_and_limits(manager: QueueManager) -> None:
    cells = MetricStore()
    metrics = WorkflowMetrics(manager.bus, cells)
    async with WorkerPool(WorkerConfig(queues=[QUEUE]), manager):
        await manager.limits.set(Limited.__job_class__.name, concurrency=1)
        jobs = await manager.dispatch_many([Limited(tenant="a"), Limited(tenant="a")])
        waiting = Batch([manager.dispatch(Note(what="x")).delay(3600)])
        await waiting.dispatch(manager)
        done = Batch([Note(what="y")])
        await done.dispatch(manager)
        await done.wait(10)
        shown = {(reading.metric.name, *reading.values): reading.value for reading in await workflow_readings(manager)}
        gate.set()
        for job in jobs:
            await manager.wait(job, 10)
    metrics.close()
    assert shown["rf_batches_open",] == 1
    assert shown["rf_batch_pending_jobs",] == 1
    assert ("rf_rate_limit_used_ratio", Limited.__job_class__.name) in shown
    counted = {
        (metric.name, *values): cell.value for metric, values, cell in cells.cells() if isinstance(cell, Counter)
    }
    assert counted["rf_workflows_finished_total", "batch", "completed"] == 1
    assert counted["rf_workflows_finished_total", "chain", "failed"] == 0
    assert counted["rf_rate_limit_throttled_total", Limited.__job_class__.name] >= 1


async def test_log_lines(manager: QueueManager, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "rf_jobs.lifecycle"):
        lines = LifecycleLog(manager.bus, redact=False)
        batch = Batch([Note(what="x")])
        async with WorkerPool(WorkerConfig(queues=[QUEUE]), manager):
            await batch.dispatch(manager)
            await batch.wait(10)
        await manager.pause_class(Note)
        lines.close()
    assert f"{batch.id} is over" in caplog.messages
    assert f"class:{Note.__job_class__.name} is paused: its jobs do not start" in caplog.messages
