"""Jobs that nobody has dispatched yet and that will be: those of schedules, and the callbacks of batches that are not over."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from rf_jobs.client.judging import Judge
from rf_jobs.client.manager import QueueManager
from rf_jobs.core.census import Found, Group
from rf_jobs.model import envelope
from rf_jobs.store import batch_calls
from rf_jobs.words.errors import SchedulerError

PAGE = 100
CALLBACKS = ("then", "catch", "finally")


async def promised(manager: QueueManager, judge: Judge, *, sample: int | None) -> list[Group]:
    """By queue, class and version, with verdicts; the state is ``schedule`` or ``callback``. At most ``sample`` schedules
    and batches are looked at, None: all. Raises ``BackendError``."""
    groups: dict[tuple[str, str, int, str], Group] = {}

    def add(queue: str, job_class: str, version: int, verdict: str, state: str, example: str) -> None:
        key = (queue, job_class, version, verdict)
        group = groups.setdefault(key, Group(queue, job_class, version, verdict, {}, example))
        group.counts[state] = group.counts.get(state, 0) + 1

    async for name in _schedule_names(manager, sample):
        try:
            _, one = await manager.schedules.reader.definition(name)
        except SchedulerError as error:  # it was removed meanwhile, or is damaged
            add("", "", 0, str(error), "schedule", name)
            continue
        home = one.queue or one.home or manager.settings.jobs.default_queue
        add(home, one.job, one.ver, judge.schedule(name, one), "schedule", f"schedule {name}")
    async for batch, job in _callbacks(manager, sample):
        letter = job.letter
        queue, name, version = (letter.queue, letter.job, letter.ver) if letter is not None else ("", "", 0)
        add(queue, name, version, judge.job(job), "callback", f"batch {batch}")
    return sorted(groups.values(), key=lambda group: (group.queue, group.job_class, group.version, group.verdict))


async def _schedule_names(manager: QueueManager, sample: int | None) -> AsyncIterator[str]:
    offset = 0
    while sample is None or offset < sample:
        names = await manager.store.run(manager.schedules.calls.names(offset, PAGE))
        for name in names:
            yield name
        offset += PAGE
        if len(names) < PAGE:
            return


async def _callbacks(manager: QueueManager, sample: int | None) -> AsyncIterator[tuple[str, Found]]:
    """Ids of batches that are not over, each with a callback that is not fired yet."""
    commands, offset = manager.store.commands, 0
    while sample is None or offset < sample:
        ids = await manager.store.run(batch_calls.open_ids(commands, offset, PAGE))
        kept = await manager.store.run_many([batch_calls.fields(commands, each) for each in ids]) if ids else []
        for batch, fields in zip(ids, kept, strict=True):
            for which in CALLBACKS:
                if which in fields and f"fired:{which}" not in fields:
                    for job_id, _, _, _, data in msgspec.json.decode(
                        fields[which], type=list[tuple[str, str, str, str, str]]
                    ):
                        yield batch, Found(job_id, data.encode(), envelope.readable(data.encode()))
        offset += PAGE
        if len(ids) < PAGE:
            return
