"""``manager.schedules``: schedules at run time."""

from __future__ import annotations

from typing import Unpack
from uuid import UUID

from rf_jobs.client.placing import Placer
from rf_jobs.client.ticking import JobMaker
from rf_jobs.core import schedules as changes
from rf_jobs.core.lifecycle import Lifecycle
from rf_jobs.core.schedules import Firing, ScheduleInfo, ScheduleReader
from rf_jobs.model.job import Job
from rf_jobs.model.schedule import Definition, ScheduleOptions, encode, named, revision, timing
from rf_jobs.store.keys import Shards
from rf_jobs.store.schedule_calls import Put, ScheduleCalls, Tick
from rf_jobs.words import options as checks
from rf_jobs.words.errors import SchedulerError
from rf_jobs.words.ids import new_id
from rf_jobs.words.timing import Duration, now_ms

TRIES = 5
Page = list[ScheduleInfo]


def put_of(name: str, definition: Definition, now: int) -> Put:
    """As it goes into the store; its first tick is the first after now. Raises ``SchedulerError``."""
    table = definition.timetable(name)
    tick = table.after(now)
    due = None if tick is None else table.due(tick)
    sealed = definition.enc is not None
    queue = definition.queue or definition.home
    return Put(name, revision(definition, sealed), timing(definition), encode(definition), tick, due, queue)


def in_its_shard(shards: Shards, name: str, home: int, queue: str) -> None:
    """Raise ``SchedulerError`` for a job that is not to go where its schedule is: its class has another queue by now."""
    if shards.of(queue) != home:
        raise SchedulerError(
            f"schedule {name!r} is in shard {home}, and its jobs go to queue {queue!r} in shard {shards.of(queue)} by now; put it"
            " again (upsert), or give it a queue of its own"
        )


class Schedules:
    """Adds, changes, shows and removes schedules. Schedulers, of which any number may run, keep them: see ``Scheduler`` and
    ``rf-jobs scheduler``. All methods raise ``BackendError``."""

    def __init__(self, lifecycle: Lifecycle, maker: JobMaker, timezone: str, placer: Placer) -> None:
        self._lifecycle = lifecycle
        self._placer = placer
        self._timezone = timezone
        self.calls = ScheduleCalls(lifecycle.store.commands)
        self.maker = maker
        self.reader = ScheduleReader(lifecycle.store, self.calls)

    async def upsert(
        self,
        name: str,
        job: Job,
        *,
        cron: str | None = None,
        every: Duration | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> bool:
        """Have ``job`` dispatched by a cron expression, or every so many seconds, under a name of your own; an existing schedule of
        this name is changed to that. Said again at each deploy it changes nothing. Answers whether anything is new.

        A change of the job alone keeps the tick that is waited for; a paused schedule stays paused. Raises
        ``SchedulerError`` for a bad expression, zone or interval, or a name that a scheduler's code has; ``InvalidOption``;
        ``SerializationError`` for a payload that does not fit.
        """
        definition = self.maker.define(named(name), job, cron, every, self._timezone, options)
        now = await self._lifecycle.store.run(self._lifecycle.store.commands.time())
        one = put_of(name, definition, now)
        if one.next is None:
            known, _ = await self._lifecycle.store.run(self.calls.definition(name))
            if known == one.revision:  # it has come to its end, and is said again
                return False
            raise SchedulerError(f"schedule {name!r} would never run: until lies before its first tick")
        elsewhere = len(self._lifecycle.store.commands.shards) > 1 and await self._is_in_code(name)
        reply = -1
        if not elsewhere:
            await self._placer.claim_queues([one.queue])
            (reply,) = await self._lifecycle.apply(changes.put(self.calls, "api", "", [one]))
            await changes.move_away(self._lifecycle.store, self.calls, "api", [one], [reply])
        if reply < 0:
            raise SchedulerError(
                f"schedule {name!r} is defined in the code of a scheduler; change it there, or give another name"
            )
        return reply > 0

    async def _is_in_code(self, name: str) -> bool:
        """Whether a scheduler has one of this name in its code, in whatever shard."""
        facts = await self._lifecycle.store.run(self.calls.facts(name))
        return facts.get("source") == "code" and "orphaned" not in facts

    async def list(self, offset: int = 0, limit: int = 100) -> Page:
        """A page of schedules, the next to run first; those that do not run come last."""
        checks.page(offset, limit)
        return await self.reader.page(offset, limit)

    async def count(self) -> int:
        """How many there are."""
        return await self.reader.count()

    async def schedulers(self) -> int:
        """How many schedulers live: without one nothing runs."""
        return await self.reader.schedulers()

    async def get(self, name: str) -> ScheduleInfo:
        """One schedule. Raises ``UnknownSchedule``."""
        return await self.reader.one(named(name))

    async def pause(self, name: str) -> bool:
        """Let it rest. Answers whether that is new. Raises ``UnknownSchedule``."""
        done = await self._lifecycle.apply(changes.pause(self.calls, named(name)))
        if done < 0:
            raise await self.reader.unknown(name)
        return done > 0

    async def resume(self, name: str) -> bool:
        """Let it run again, from its next tick on: what came meanwhile is not made up for. Answers whether that is new.
        Raises ``UnknownSchedule``."""
        for _ in range(TRIES):
            known, definition = await self.reader.definition(named(name))
            table = definition.timetable(name)
            tick = table.after(await self._lifecycle.store.run(self._lifecycle.store.commands.time()))
            due = None if tick is None else table.due(tick)
            done = await self._lifecycle.apply(changes.resume(self.calls, name, known, tick, due))
            if done == -1:
                raise await self.reader.unknown(name)
            if done >= 0:
                return done > 0
        raise SchedulerError(f"schedule {name!r} is being changed all the time; try again")

    async def trigger(self, name: str) -> UUID:
        """Have it run now, out of turn, also while it is paused; its ticks go on as they would. Answers with the job's id.
        Raises ``UnknownSchedule``, and as a dispatch does."""
        known, definition = await self.reader.definition(named(name))
        job_id = new_id()
        now = now_ms()
        made = self.maker.make(name, definition, self.maker.job(name, definition), job_id, now)
        shards = self._lifecycle.store.commands.shards
        home = shards.of(definition.queue or definition.home)
        in_its_shard(shards, name, home, made.draft.queue)
        await self._placer.claim([made.draft])
        tick = Tick(name, None, known, now, None, None, 0, "", made.draft, made.event.job_class, home)
        ((code, detail),) = await self._lifecycle.apply(changes.fire(self.calls, "", [Firing(tick, made)]))
        if code == "gone":
            raise await self.reader.unknown(name)
        if code != "fired":
            raise SchedulerError(f"schedule {name!r} was not triggered: the dispatch was refused ({detail})")
        return job_id

    async def remove(self, name: str) -> None:
        """Remove it; jobs that it has dispatched stay. Raises ``UnknownSchedule``, and ``SchedulerError`` for one that a
        scheduler which lives has in its code."""
        done = await self._lifecycle.apply(changes.drop(self.calls, named(name)))
        if done == 0:
            raise await self.reader.unknown(name)
        if done < 0:
            raise SchedulerError(
                f"schedule {name!r} is defined in the code of a scheduler; remove it there, or pause it"
            )
