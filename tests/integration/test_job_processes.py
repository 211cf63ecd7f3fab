"""Jobs in processes of their own: more time, log lines, and the hook of one that killed its process too often."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rf_jobs import JobContext, Middleware, QueueManager, WorkerConfig, WorkerPool
from rf_jobs.model.events import JobDispatched
from rf_jobs.model.middleware import Handle
from rf_jobs.words.errors import JobError
from tests.support.jobs import QUEUE, Dispatches
from tests.support.long_jobs import DiesWithHook, ExtendsInProcess, LogsInProcess, UsesALoopOfBefore
from tests.support.tracing import attribute, context, conversation, lab, under


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running, WorkerPool(WorkerConfig(queues=[QUEUE], grace=20, sleep=5), running):
        yield running


async def test_more_time_can_be_had(manager: QueueManager) -> None:
    assert await manager.dispatch(ExtendsInProcess()).result(20) == "in time"


async def test_lines_go_through_the_workers_own_logging(
    manager: QueueManager, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    handle = await manager.dispatch(LogsInProcess()).handle()
    pid = await handle.result(20)
    lines = {record.name: record for record in caplog.records if record.process == pid}
    assert set(lines) == {"rf_jobs.job", "tests.own"}, "a debug line, or none"
    told = lines["rf_jobs.job"]
    assert (told.getMessage(), told.levelname) == ("half way", "INFO")
    assert vars(told)["rf_fields"] == {"done": 5, "of": 10}
    job = vars(told)["rf_job"]
    assert (job["job_id"], job["attempt"], job["queue"]) == (str(handle.id), 1, QUEUE)
    odd = lines["tests.own"]
    assert odd.getMessage().startswith("odd ?\nTraceback")
    assert "ValueError: caught" in odd.getMessage()
    assert vars(odd)["colour"].startswith("<object object")
    assert odd.filename == "long_jobs.py"
    assert "half way" not in capfd.readouterr().err, "the child writes by itself too"


async def test_the_last_crash_of_a_job_in_its_own_process_calls_its_hook(manager: QueueManager, tmp_path: Path) -> None:
    path = tmp_path / "told"
    handle = await manager.dispatch(DiesWithHook(path=str(path))).handle()
    with pytest.raises(JobError):
        await handle.result(30)
    record = await handle.record()
    assert (record.state, record.reason, record.crashes) == ("dead", "poison", 3)
    [line] = path.read_text().splitlines()
    assert line == "ExecutionFailed: its process died with exit code 9; it was crash 3, max_crashes is 3"


async def test_one_event_loop_for_all_jobs_of_a_process(manager: QueueManager) -> None:
    """A client that a job's module keeps is bound to the loop it was made in; also after a job that left by SystemExit."""
    first = await manager.dispatch(UsesALoopOfBefore()).result(20)
    with pytest.raises(JobError, match="SystemExit"):
        await manager.dispatch(UsesALoopOfBefore(leave=True)).result(20)
    pid, count = first
    assert await manager.dispatch(UsesALoopOfBefore()).result(20) == [pid, count + 2]


class Traced(Middleware):
    """Stands for a tracer."""

    async def around(self, ctx: JobContext, job: object, handle: Handle) -> object:
        ctx.trace = f"00-{'a' * 32}-{'b' * 16}-01"
        return await handle()


@pytest.mark.parametrize("how", ["queue", "manager", "sync"])
async def test_what_it_dispatches_is_told_and_says_where_it_comes_from(manager: QueueManager, how: str) -> None:
    told: list[tuple[str, str]] = []
    manager.bus.subscribe(JobDispatched, lambda event: told.append((event.job_id, event.job_class)))
    manager.middleware.add(Traced())
    parent = await manager.dispatch(Dispatches(how=how))
    child = await manager.wait(parent, 30)
    assert told == [(str(parent), "tests.support.jobs:Dispatches"), (child, "tests.support.jobs:Add")]
    assert await manager.wait(child, 20) == 3
    letter = await manager.inspector.envelope(child)
    assert letter is not None
    assert letter.hdr is not None
    assert letter.hdr.cv == str(parent)
    version, trace, span, flags = letter.hdr.tp.split("-")
    assert (version, trace, flags) == ("00", "a" * 32, "01")
    assert span != "b" * 16


async def test_its_dispatches_have_spans(redis_url: str) -> None:
    async with lab(redis_url) as it:
        parent = await it.manager.dispatch(Dispatches(how="queue")).on_queue("traced")
        child = await it.manager.wait(parent, 30)
        own, send = await it.span("process traced"), await it.span("send t")
    assert under(send, own)
    assert attribute(send, "messaging.message.id") == child
    assert attribute(send, "rf_jobs.dispatch.result") == "enqueued"
    assert conversation(send) == str(parent)
    assert send.start_time is not None
    assert own.start_time is not None
    assert own.start_time <= send.start_time


async def test_many_of_its_dispatches_are_linked_to_it(redis_url: str) -> None:
    async with lab(redis_url) as it:
        parent = await it.manager.dispatch(Dispatches(how="many")).on_queue("traced")
        children = (await it.manager.wait(parent, 30)).split()
        own = await it.span("process traced")
        letters = [await it.manager.inspector.envelope(child) for child in children]
    assert len(children) == 2
    for letter in letters:
        assert letter is not None
        assert letter.hdr is not None
        assert int(letter.hdr.tp.split("-")[2], 16) == context(own).span_id
        assert letter.hdr.ts == "rf=l"
