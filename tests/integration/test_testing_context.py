"""``JobContext.fake()``: what a unit test sees of a handler."""

from __future__ import annotations

import logging

import pytest

from rf_jobs import Job, JobContext, SerializationError, WorkerError
from rf_jobs.testing import FakeContext, FakeQueue


class Import(Job):
    rows: int

    async def handle(self, ctx: JobContext) -> int:
        done = ctx.state["row"] if ctx.state else 0
        ctx.log("starting", row=done)
        total = await ctx.step("count", lambda: self.rows)
        while done < total:
            done += 1
            await ctx.progress(done, total, f"row {done}")
            await ctx.checkpoint({"row": done})
        await ctx.extend(30)
        if ctx.is_final_attempt:
            ctx.log("this was the last try", level=logging.WARNING)
        await ctx.manager.dispatch(Import(rows=0))
        return done


async def test_notes_tell_what_the_handler_did() -> None:
    queue = FakeQueue()
    ctx = JobContext.fake(state={"row": 1}, attempt=3, manager=queue)
    assert isinstance(ctx, FakeContext)
    before = ctx.deadline
    assert await Import(rows=3).handle(ctx) == 3
    assert ctx.notes.messages == ["starting", "this was the last try"]
    assert [str(line) for line in ctx.notes.lines] == ["INFO starting row=1", "WARNING this was the last try"]
    assert ctx.notes.progress == [(2, 3, "row 2"), (3, 3, "row 3")]
    assert ctx.notes.checkpoints == [{"row": 2}, {"row": 3}]
    assert ctx.state == {"row": 3}
    assert ctx.notes.steps == {"count": 3}
    assert ctx.notes.extended == 30.0 == (ctx.deadline - before).total_seconds()
    queue.assert_dispatched(Import(rows=0))


async def test_what_a_worker_could_not_keep_is_refused() -> None:
    ctx = JobContext.fake()
    with pytest.raises(SerializationError, match="the checkpoint of type object cannot be written as JSON"):
        await ctx.checkpoint(object())
    with pytest.raises(SerializationError, match="the answer of step 'x'"):
        await ctx.step("x", object)
    kept: object = await ctx.step("y", lambda: (1, 2))
    assert kept == [1, 2], "as a later attempt would find it"
    assert ctx.notes.checkpoints == []
    with pytest.raises(WorkerError, match=r"pass JobContext\.fake\(manager="):
        ctx.manager.dispatch(Import(rows=1))
