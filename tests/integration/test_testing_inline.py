"""``inline()``: a dispatch runs its job at once, as a worker would."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rf_jobs import (
    Discard,
    EventBus,
    ExecutionFailed,
    Fail,
    Handle,
    Job,
    JobContext,
    JobError,
    JobNotFound,
    JobTimeout,
    Middleware,
    Queue,
    QueueManager,
    Retry,
    SerializationError,
    Snooze,
    State,
    WorkerError,
    configure,
    events,
)
from rf_jobs.testing import InlineQueue, drain, inline
from tests.support.jobs import Add, Dynamic, Fails, Filtered, Hook, InThread, Odd, Slow, SlowThread

tenant: ContextVar[str] = ContextVar("tenant", default="")


class Says(Job):
    """What it is told to."""

    do: str
    times: int = 1

    async def handle(self, ctx: JobContext) -> object:
        first = ctx.attempt == 1 and ctx.state is None
        if self.do == "retry" and first:
            raise Retry("not yet", delay=90)
        if self.do == "snooze" and first:
            await ctx.checkpoint({"at": [1, 2]})
            raise Snooze(300)
        if self.do == "snooze for ever":
            raise Snooze(1)
        if self.do == "discard":
            raise Discard("no longer wanted")
        if self.do == "fail":
            raise Fail("for good")
        if self.do == "dispatch" and self.times:
            return str(await ctx.manager.dispatch(Says(do="dispatch", times=self.times - 1)))
        if self.do == "itself":
            await Queue.dispatch(self)
        if self.do == "news":
            ctx.log("half way", done=5)
            await ctx.progress(5, 10, "five")
            await ctx.extend(30)
            return {"tenant": tenant.get(), "when": datetime(2030, 1, 1, tzinfo=UTC), "attempt": ctx.attempt}
        if self.do == "odd result":
            return object()
        return f"attempt {ctx.attempt}, state {ctx.state}"


class InAThread(Job):
    """A plain function."""

    asks: bool = False

    def handle(self, ctx: JobContext) -> list[str]:
        if self.asks:
            Queue.dispatch(InAThread()).sync()
        return [threading.current_thread().name, tenant.get()]


class Isolated(Job, executor="process"):
    def handle(self, ctx: JobContext) -> str:
        return threading.current_thread().name


async def test_a_dispatch_returns_when_the_job_has_run() -> None:
    with inline() as queue:
        job_id = await Queue.dispatch(Add(a=1, b=2)).delay(3600)
        assert await queue.wait(job_id) == 3
        assert await Queue.dispatch(Add(a=3, b=4)).result() == 7
    ran = queue.ran(job_id)
    assert (ran.state, ran.attempt, ran.result, ran.error, ran.delays) == (State.COMPLETED, 1, 3, None, [])
    queue.assert_dispatched(Add, a=1, delay=3600)
    queue.assert_count(2)


async def test_retries_follow_at_once_and_their_delays_are_told() -> None:
    with inline() as queue:
        handle = await Queue.dispatch(Fails(until=3)).handle()
        assert await handle.result() == "attempt 3 of 3"
        steered = await Queue.dispatch(Says(do="retry"))
        snoozed = await Queue.dispatch(Says(do="snooze"))
    assert queue.ran(handle.id).delays == [0.0, 0.0]
    assert isinstance(queue.ran(handle.id).error, RuntimeError)
    assert (queue.ran(steered).delays, queue.ran(steered).result) == ([90.0], "attempt 2, state None")
    assert (queue.ran(snoozed).delays, queue.ran(snoozed).result) == ([300.0], "attempt 1, state {'at': [1, 2]}")
    assert queue.ran(snoozed).notes.checkpoints == [{"at": [1, 2]}]


async def test_the_error_of_the_last_attempt_is_raised() -> None:
    with inline() as queue:
        with pytest.raises(RuntimeError, match="attempt 3") as raised:
            await Queue.dispatch(Fails())
        assert any(entry.name == "handle" for entry in raised.traceback), "it is the exception itself"
        with pytest.raises(Fail, match="for good"):
            await Queue.dispatch(Says(do="fail"))
        with pytest.raises(OSError, match="os"):
            await Queue.dispatch(Filtered(error="os"))
        assert queue.ran(queue.ids[-1]).attempt == 5
        with pytest.raises(ValueError, match="value"):
            await Queue.dispatch(Filtered(error="value"))
        assert queue.ran(queue.ids[-1]).attempt == 1, "retry_on does not name it"
        with pytest.raises(SystemExit):
            await Queue.dispatch(Odd(what="exit"))
        with pytest.raises(ExecutionFailed, match="cannot be written as JSON") as refused:
            await Queue.dispatch(Says(do="odd result"))
        assert refused.value.error_type.endswith("SerializationError")


async def test_or_kept() -> None:
    with inline(raise_errors=False) as queue:
        failed = await Queue.dispatch(Fails())
        given_up = await Queue.dispatch(Says(do="discard"))
        filtered = await Queue.dispatch(Filtered(error="key"))
        with pytest.raises(ExecutionFailed, match=r"dead letter after 3 attempts: RuntimeError: attempt 3") as why:
            await queue.wait(failed)
        assert isinstance(why.value.__cause__, RuntimeError)
        with pytest.raises(JobError, match="ended as cancelled: no longer wanted"):
            await queue.wait(given_up)
    assert queue.ran(failed).state is State.DEAD
    assert str(queue.ran(failed).error) == "attempt 3"
    assert queue.ran(filtered).state is State.CANCELLED


async def test_of_many_all_run_before_anything_is_raised() -> None:
    with inline() as queue:
        with pytest.raises(RuntimeError, match="attempt 3"):
            await Queue.dispatch_many([Fails(), Add(a=1, b=1)])
        assert [queue.ran(job_id).state for job_id in queue.ids] == [State.DEAD, State.COMPLETED]
        with pytest.raises(BaseExceptionGroup, match="2 jobs died") as group:
            await Queue.dispatch_many([Fails(), Says(do="fail")])
        assert [type(each) for each in group.value.exceptions] == [RuntimeError, Fail]
        await Queue.dispatch_many([])


async def test_a_timeout_holds() -> None:
    with inline() as queue:
        began = time.monotonic()
        with pytest.raises(JobTimeout) as timeout:
            await Queue.dispatch(Slow())
        assert timeout.value.after == 0.3
        assert queue.ran(queue.ids[0]).attempt == 2
        with pytest.raises(JobTimeout):
            await Queue.dispatch(SlowThread())
        assert time.monotonic() - began < 10


async def test_the_failed_hook_is_called_once_with_the_last_error(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.touch()
    with inline(raise_errors=False):
        await Queue.dispatch(Hook(path=str(notes)))
    assert notes.read_text() == "2 ValueError: always\n"


async def test_options_are_worked_out_as_in_a_worker() -> None:
    with inline(raise_errors=False) as queue:
        job_id = await Queue.dispatch(Dynamic(attempts=4, policy="fixed"))
        broken = await Queue.dispatch(Dynamic(attempts=4, policy="broken"))
        fewer = await Queue.dispatch(Fails()).max_attempts(2)
    assert queue.ran(job_id).attempt == 4
    assert (queue.ran(broken).attempt, queue.ran(broken).reason) == (1, "backoff")
    assert queue.ran(fewer).attempt == 2


async def test_what_a_job_dispatches_runs_inside_of_it() -> None:
    with inline() as queue:
        await Queue.dispatch(Says(do="dispatch", times=3))
    assert [job.times for job in queue.jobs if isinstance(job, Says)] == [3, 2, 1, 0]
    assert {queue.ran(each).state for each in queue.ids} == {State.COMPLETED}


async def test_jobs_without_an_end_are_noticed() -> None:
    with inline():
        with pytest.raises(WorkerError, match="seem to dispatch each other for ever"):
            await Queue.dispatch(Says(do="itself")).max_attempts(1)
        with pytest.raises(WorkerError, match="inline there is no later"):
            await Queue.dispatch(Says(do="snooze for ever"))


async def test_delayed_jobs_can_be_left_alone() -> None:
    with inline(delayed=False) as queue:
        later = await Queue.dispatch(Add(a=1, b=2)).delay(10)
        at = await Queue.dispatch(Add(a=1, b=2)).at(datetime(2040, 1, 1, tzinfo=UTC))
        now = await Queue.dispatch(Add(a=1, b=2))
    assert queue.ran(now).result == 3
    for job_id in (later, at):
        with pytest.raises(JobNotFound, match="ran inline; 1 did"):
            queue.ran(job_id)


async def test_what_a_job_says_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    token = tenant.set("7")
    with inline() as queue, caplog.at_level(logging.INFO):
        handle = await Queue.dispatch(Says(do="news")).handle()
        assert (await handle.progress()).percentage == 50
        assert await handle.result() == {"tenant": "7", "when": "2030-01-01T00:00:00Z", "attempt": 1}
        silent = await Queue.dispatch(Add(a=1, b=2)).handle()
        assert (await silent.progress()).total == 0
    tenant.reset(token)
    notes = queue.ran(handle.id).notes
    assert [str(line) for line in notes.lines] == ["INFO half way done=5"]
    assert (notes.messages, notes.progress, notes.extended) == (["half way"], [(5, 10, "five")], 30.0)
    assert "half way" in caplog.messages


async def test_plain_functions_run_in_a_thread_and_processes_in_this_one() -> None:
    with inline() as queue:
        assert await Queue.dispatch(InThread()).result() != threading.current_thread().name
        assert await Queue.dispatch(Isolated()).result() != threading.current_thread().name
        nested = await Queue.dispatch(InAThread(asks=True))
        assert queue.ran(nested).state is State.COMPLETED
    queue.assert_dispatched(InAThread, times=2)


def test_without_a_loop_plain_functions_run_in_the_thread_that_dispatches() -> None:
    tenant.set("8")
    with inline() as queue:
        job_id = Queue.dispatch(InAThread(asks=True)).sync()
        assert queue.ran(job_id).result == [threading.current_thread().name, "8"]
        assert queue.ran(queue.ids[1]).result == [threading.current_thread().name, "8"]
        assert queue.ran(Queue.dispatch(Says(do="news")).sync()).result["tenant"] == "8"
        with pytest.raises(RuntimeError, match="attempt 3"):
            Queue.dispatch(Fails()).sync()
        assert queue.ran(Queue.dispatch(Isolated()).sync()).result == threading.current_thread().name


async def test_sync_works_where_a_loop_runs() -> None:
    with inline() as queue:
        job_id = Queue.dispatch(InAThread(asks=True)).sync()
        assert queue.ran(job_id).result[0] != threading.current_thread().name
        assert queue.ran(Queue.dispatch(Add(a=1, b=1)).sync()).result == 2


async def test_the_same_job_under_the_same_id_runs_once() -> None:
    bus = EventBus()
    started: list[str] = []
    bus.subscribe(events.JobStarted, lambda e: started.append(e.job_id))
    with InlineQueue(bus=bus) as queue:
        first = await Queue.dispatch(Add(a=1, b=2))
        await Queue.dispatch(Add(a=1, b=2)).with_id(first)
    assert started == [str(first)]
    queue.forget()
    with pytest.raises(JobNotFound):
        queue.ran(first)


async def test_middlewares_wrap_and_events_tell() -> None:
    class Notes(Middleware):
        def __init__(self) -> None:
            self.seen: list[str] = []

        async def around(self, ctx: JobContext, job: Job, handle: Handle) -> object:
            self.seen.append(f"before {ctx.attempt}")
            return await handle()

    notes, bus = Notes(), EventBus()
    told: list[str] = []
    bus.subscribe(events.JobEvent, lambda e: told.append(type(e).__name__))
    try:
        configure(middleware=[notes])
        with InlineQueue(bus=bus, raise_errors=False):
            await Queue.dispatch(Fails(until=2))
            await Queue.dispatch(Says(do="discard"))
    finally:
        configure()
    assert notes.seen == ["before 1", "before 2", "before 1"]
    assert told == [
        "JobDispatched", "JobStarted", "JobRetried", "JobStarted", "JobCompleted",
        "JobDispatched", "JobStarted", "JobDiscarded",
    ]  # fmt: skip


async def test_a_payload_that_does_not_fit_is_refused() -> None:
    with inline() as queue:
        with pytest.raises(SerializationError, match="field 'a'"):
            await Queue.dispatch(Add(a="one", b=2))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        queue.assert_nothing_dispatched()


async def test_a_dispatch_that_is_cancelled_cancels_its_job() -> None:
    with inline() as queue:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await Queue.dispatch(Slow())
        assert queue.ran(queue.ids[0]).state is State.READY


BEHAVIOURS: dict[str, Job] = {
    "returns": Add(a=1, b=2),
    "third time": Fails(until=3),
    "never": Fails(),
    "retry": Says(do="retry"),
    "snooze": Says(do="snooze"),
    "discard": Says(do="discard"),
    "fail": Says(do="fail"),
    "odd result": Says(do="odd result"),
    "retry_on": Filtered(error="os"),
    "not in retry_on": Filtered(error="value"),
    "discard_on": Filtered(error="key"),
    "exits": Odd(what="exit"),
    "huge message": Odd(what="huge"),
    "no message": Odd(what="unprintable"),
    "cancels itself": Odd(what="cancelled"),
    "timeout": Slow(),
    "broken backoff": Dynamic(attempts=2, policy="broken"),
    "own attempts": Dynamic(attempts=4),
}


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
async def test_a_job_ends_as_in_a_worker(behaviour: str, redis_url: str) -> None:
    with inline(raise_errors=False) as queue:
        ran = queue.ran(await Queue.dispatch(BEHAVIOURS[behaviour]))
    async with QueueManager(redis_url) as manager:
        job_id = await manager.dispatch(BEHAVIOURS[behaviour])
        await drain(manager, with_scheduled=True, raise_errors=False, until=8 * 86_400)
        record = await manager.job(job_id)
    assert (ran.state, ran.attempt, ran.result) == (record.state, record.attempt, record.result)
    if ran.state is not State.COMPLETED:
        assert ran.reason == record.reason
