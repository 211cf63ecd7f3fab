"""``Scheduler``: dispatches jobs when their schedules say so.

Any number of schedulers may run. There is no leader: each asks the store for what is due, and the script that dispatches a
tick's job moves its schedule on in the same step, so that whoever comes second finds it done. A scheduler may be killed at any
moment: what it was about to do another does a second later.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import socket
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, Self

from rf_jobs.client.manager import QueueManager
from rf_jobs.client.recurring import Schedule
from rf_jobs.model.events import SchedulerStarted, SchedulerStopped
from rf_jobs.model.schedule import Definition
from rf_jobs.store.schedule_calls import BELIEVED_MS
from rf_jobs.words.errors import RfJobsError, SchedulerError
from rf_jobs.words.ids import new_token
from rf_jobs.words.timing import Duration, mono
from rf_jobs.words.version import package_version
from rf_jobs.words.zones import zone
from rf_jobs.worker.declaration import Declaration
from rf_jobs.worker.firing import Firer
from rf_jobs.worker.patience import PATIENCE_SECONDS, Failures

log = logging.getLogger("rf_jobs.scheduler")
POLL_SECONDS = 5.0
"""How long a scheduler sleeps at most: the truth, beside the word that something is due sooner."""
PAGE = 100
"""Schedules that it handles at once."""


class Scheduler:
    """Keeps the schedules of its code, and runs those and all others that are due: ``async with Scheduler(manager): ...``.

    ``start`` makes contact, puts the code's schedules into the store and begins; ``shutdown`` ends after the step at hand. It
    dispatches, and runs no job. ``timezone`` is for cron expressions that name no zone of their own.
    """

    def __init__(self, manager: QueueManager | None = None, *, timezone: str | None = None) -> None:
        """Without a manager it makes one when it starts; so a module may have a scheduler, and say its schedules, for
        ``rf-jobs scheduler`` to find. Raises ``SchedulerError`` for an unknown zone."""
        if manager is not None and not isinstance(manager, QueueManager):
            raise SchedulerError(f"manager is {manager!r}; give a QueueManager")
        if timezone is not None:
            zone(timezone)
        self._own_manager = manager is None
        self._manager = manager
        self._timezone = timezone
        self.id = f"s{new_token()}"
        self._stated: list[Schedule] = []
        self._adopted: list[Scheduler] = []
        self._wakeup = asyncio.Event()
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._progress = 0.0

    # --- what its code says ------------------------------------------------------------------------------------------

    def schedule(self, cron: str | None = None) -> Schedule:
        """A new schedule by a cron expression, or, with ``.every(seconds)``, by an interval. Before ``start``.

        Raises ``SchedulerError`` that says where the expression has a fault.
        """
        if self._tasks:
            raise SchedulerError(
                "this scheduler was started already; say its schedules before, or use manager.schedules.upsert"
            )
        new = Schedule(cron)
        self._stated.append(new)
        return new

    def every(self, interval: Duration) -> Schedule:
        """``schedule().every(interval)``."""
        return self.schedule().every(interval)

    def adopt(self, other: Scheduler) -> None:
        """Keep the schedules of another one too, which is not started then."""
        if other is not self and other not in self._adopted:
            self._adopted.append(other)

    def definitions(self) -> dict[str, Definition]:
        """What its code says, by name. Raises ``SchedulerError`` where that can't be, and what defining a schedule may."""
        found: dict[str, Definition] = {}
        for scheduler in (self, *self._adopted):
            timezone = scheduler._timezone or self.manager.settings.scheduler.timezone  # noqa: SLF001 (another of our own)
            for stated in scheduler._stated:  # noqa: SLF001 (likewise)
                name, definition = stated.define(self.manager.schedules.maker, timezone)
                if name in found:
                    raise SchedulerError(
                        f"two schedules are called {name!r}; give one of them another name with .name(...)"
                    )
                found[name] = definition
        return found

    @property
    def manager(self) -> QueueManager:
        """Its way to the server."""
        if self._manager is None:
            self._manager = QueueManager()
        return self._manager

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Put the code's schedules into the store, and begin. Raises ``SchedulerError`` and what defining a schedule may raise,
        and ``BackendError``."""
        if self._tasks or self._stopping:
            raise SchedulerError("this scheduler was started before; make a new one")
        self._calls = self.manager.schedules.calls
        self._firer = Firer(self.manager, self.id)
        self._declaration = Declaration(self.manager.lifecycle, self._calls, self.id, self.definitions())
        await self.manager.store.connect()
        await self._declaration.put()
        self._progress = mono()
        self._tasks = [self._spawn("scheduler", self._run()), self._spawn("scheduler-ear", self._listen())]
        self.manager.bus.emit(SchedulerStarted(self.id, len(self._declaration)))
        log.info("scheduler %s runs, with %d schedules in its code", self.id, len(self._declaration))

    def _spawn(self, name: str, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # An empty context: what goes on for ever must not live inside somebody's span.
        return asyncio.create_task(coroutine, name=f"rf-jobs-{name}", context=contextvars.Context())

    async def shutdown(self) -> None:
        """End after the step at hand."""
        if self._stopping:
            return
        self._stopping = True
        self._wakeup.set()
        if self._tasks:
            loop, ear = self._tasks
            ear.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS + 3):
                    await asyncio.shield(asyncio.wait([loop]))
            loop.cancel()
            await asyncio.gather(loop, ear, return_exceptions=True)
            try:
                await self.manager.store.run_many(self._calls.leave(self.id), retry_for=0.5)
            except RfJobsError as error:
                log.warning("could not sign off: %s", error)
            self.manager.bus.emit(SchedulerStopped(self.id))
            log.info("scheduler %s stopped", self.id)
        await self._close()

    async def _close(self) -> None:
        if self._own_manager and self._manager is not None:
            await self._manager.aclose()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.shutdown()

    @property
    def is_running(self) -> bool:
        """Whether it has started and was not told to stop."""
        return bool(self._tasks) and not self._stopping

    def stalled(self) -> str:
        """Why it makes no progress; '' while it does."""
        if not self.is_running:
            return "the scheduler is not running"
        if self._tasks[0].done():
            return "the scheduler's loop has ended"
        silent = mono() - self._progress
        return f"the store has not answered for {silent:.0f} s" if silent > 2 * POLL_SECONDS + 5 else ""

    # --- the loop ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        failures = Failures()
        while not self._stopping:
            try:
                more = await self._round()
            except RfJobsError as error:
                failures.add(f"scheduling failed: {error}")
                await failures.pause()
                continue
            except Exception:
                log.exception("scheduling failed")
                await failures.pause()
                continue
            failures.end()
            self._progress = mono()
            if more:
                await self._sleep(more)

    async def _round(self) -> float:
        """One look at what is due; answers with how long to sleep (seconds)."""
        await self._declaration.touch_now_and_then()
        await self._firer.make_sure()
        self._wakeup.clear()
        facts: dict[str, str | bytes | int | float] = {
            "host": socket.gethostname(), "pid": os.getpid(), "version": package_version(), "schedules": len(self._declaration),
        }  # fmt: skip
        agenda = await self.manager.store.run(self._calls.due(self.id, PAGE, facts), retry_for=PATIENCE_SECONDS)
        asked = mono()
        await self._firer.work(agenda, asked)
        if len(agenda.schedules) >= PAGE:
            return 0.0
        if agenda.schedules:
            return 0.001  # where something has moved on, its next tick may be the soonest
        if agenda.next_due_ms is None:
            return POLL_SECONDS
        left = (agenda.next_due_ms - agenda.now_ms + 1) / 1000 - (mono() - asked)
        return min(POLL_SECONDS, max(0.001, left))

    async def _sleep(self, delay: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._wakeup.wait()

    async def _listen(self) -> None:
        """Hear when something is due sooner than one knew. A hint: the poll is the truth."""
        while True:
            channels = self.manager.store.channels("schedules")
            try:
                await channels.add("sooner")
                self._wakeup.set()  # what was said before nobody has heard
                while True:
                    if await channels.hear(BELIEVED_MS / 1000) is not None:
                        self._wakeup.set()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                log.debug("the scheduler's ear failed: %s; listening again", error)
            finally:
                with contextlib.suppress(Exception):
                    await channels.aclose()
            await asyncio.sleep(POLL_SECONDS)


def scheduler_of(manager: QueueManager, modules: Sequence[str]) -> Scheduler:
    """A scheduler with the schedules of all those that these imported modules, and those below them, have among their
    names."""
    one = Scheduler(manager)
    found: dict[int, Scheduler] = {}
    for name, module in list(sys.modules.items()):
        if any(name == each or name.startswith(f"{each}.") for each in modules):
            found.update((id(value), value) for value in vars(module).values() if isinstance(value, Scheduler))
    for scheduler in found.values():
        one.adopt(scheduler)
    return one
