"""A worker process's inner life: slots that run attempts, the buffer between them and the fetcher, and the clock that
enforces deadlines.

Slots are long-lived tasks that take from one buffer: no task is made per job, and no timer either. One tick looks
after all deadlines and measures how late the event loop runs.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from rf_jobs.core.transitions import AttemptEnd
from rf_jobs.model.context import JobContext
from rf_jobs.model.events import EventBus, JobOverran, LeaseLost, LoopLagged
from rf_jobs.store.shapes import Fetched
from rf_jobs.words.timing import mono
from rf_jobs.worker.appetite import Appetite
from rf_jobs.worker.attempt import Attempt, Crowd
from rf_jobs.worker.gatherer import Gatherer
from rf_jobs.worker.leases import LeaseTable
from rf_jobs.worker.outcome import Account, Policy, Stopped, decide

log = logging.getLogger("rf_jobs.worker")
TICK_SECONDS = 0.1
YIELD_AFTER = 32
STALE_BUFFER_SECONDS = 1.0
LAG_REPORT_SECONDS = 0.25
RELEASE = Policy(1, 0, 0)


class Engine:
    """Starts with ``start``; ``stop`` ends it after the running attempts have. What is still buffered then is handed
    back. Loses nothing: every attempt ends in an outcome or stays leased."""

    def __init__(
        self, slots: int, table: LeaseTable, appetite: Appetite, bus: EventBus, worker: str, grace: float,
        perform: Callable[[Attempt], Coroutine[Any, Any, AttemptEnd | None]],
        perform_many: Callable[[Crowd, Callable[[Attempt, AttemptEnd | None], None]], Coroutine[Any, Any, None]],
        ended: Callable[[AttemptEnd, int], None], poke: Callable[[], None], acknowledge: Callable[[JobContext], None],
    ) -> None:  # fmt: skip
        self.slots = slots
        self.table = table
        self._appetite = appetite
        self._bus = bus
        self._worker = worker
        self._grace = grace
        self._perform = perform
        self._perform_many = perform_many
        self._ended = ended
        self._poke = poke
        self._acknowledge = acknowledge
        self._buffer: deque[Attempt] = deque()
        self._gatherer = Gatherer(self._wake_one)
        self._ripe = self._gatherer.ripe
        self._held: dict[str, Attempt] = {}
        """Every attempt from fetch to end, by job id."""
        self._running: set[Attempt] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._hurry = asyncio.Event()
        self._closed = False
        self.done = 0
        """Attempts that ended."""
        self.busy_seconds = 0.0
        """Slot-seconds spent in attempts that ended."""
        self.unstoppable = 0
        """Attempts that are running past their timeout and grace."""

    def start(self) -> None:
        """Begin to run what is accepted."""
        for number in range(self.slots):
            task = asyncio.create_task(self._slot(), name=f"rf-jobs-slot-{number}", context=contextvars.Context())
            self._tasks.append(task)
        self._tick = asyncio.create_task(self._clock(), name="rf-jobs-clock", context=contextvars.Context())
        self._tasks.append(self._tick)

    def is_ending(self) -> bool:
        """Whether the engine was stopped, or the loop ends under it: then the clock, which nobody else cancels, is cancelled
        with everything."""
        return self._closed or self._tick.done() or self._tick.cancelling() > 0

    # --- what the fetcher asks -----------------------------------------------------------------------------------

    def running(self) -> int:
        """Slots that are taken."""
        return len(self._running)

    def in_line(self) -> int:
        """What waits for a slot: attempts, and crowds of them."""
        return len(self._buffer) + len(self._ripe)

    def buffered(self) -> int:
        """Attempts that are in no slot."""
        return len(self._buffer) + len(self._gatherer)

    def accept(self, fetched: Fetched) -> None:
        """Take over what a fetch brought."""
        now, held = mono(), self._held
        self._appetite.lent = 0
        for leased in fetched.jobs:
            if leased.id in held:  # an earlier lease of it is still being ended here
                held[leased.id].interrupt("lost")
            place = self.table.add(leased.queue, leased.id, fetched.nonce)
            held[leased.id] = attempt = Attempt(leased, place, now, fetched.now_ms)
            self._buffer.append(attempt)
        self._idle.clear()
        if self._stopping:
            self.hand_back()
        else:
            self._wake_one()

    # --- the slots -----------------------------------------------------------------------------------------------

    def _wake_one(self) -> None:
        """Wake one slot; it wakes the next if there is more. With instant jobs one slot does it all, without switches."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return

    async def _slot(self) -> None:
        loop = asyncio.get_running_loop()
        this = asyncio.current_task()  # asked once: up to Python 3.11 each call costs a microsecond
        in_a_row = 0
        while not self._closed:
            if self._ripe:
                await self._together(self._ripe.popleft(), this)
                continue
            if not self._buffer:
                future = loop.create_future()
                self._waiting.append(future)
                await future
                in_a_row = 0
                continue
            attempt = self._buffer.popleft()
            if self._buffer and self._waiting:
                self._wake_one()
            attempt.slot = this
            self._running.add(attempt)
            try:
                end = await self._perform(attempt)
            except BaseException as error:
                if isinstance(error, asyncio.CancelledError) and self.is_ending():
                    raise
                # A fault of ours: the job stays leased, and is taken back when the lease runs out.
                log.exception("the runner failed on job %s", attempt.leased.id)
                end = None
            if end is None and attempt.many is not None:
                self._set_aside(attempt)
            else:
                self._over(attempt, end)
            in_a_row += 1
            if in_a_row >= YIELD_AFTER:
                in_a_row = 0
                await asyncio.sleep(0)

    def _over(self, attempt: Attempt, end: AttemptEnd | None) -> None:
        self._free(attempt)
        self.done += 1
        self._drop(attempt, end)

    def _free(self, attempt: Attempt) -> None:
        """Its slot is free."""
        self._running.discard(attempt)
        self.busy_seconds += mono() - attempt.began
        if attempt.overran:
            self.unstoppable -= 1

    def _drop(self, attempt: Attempt, end: AttemptEnd | None) -> None:
        if end is not None:
            self.table.end(attempt.place)
            self._ended(end, attempt.place)
        else:
            self.table.remove(attempt.place)
            self._poke()
        if self._held.get(attempt.leased.id) is attempt:
            del self._held[attempt.leased.id]
        if not self._held:
            self._idle.set()

    # --- crowds --------------------------------------------------------------------------------------------------

    def _set_aside(self, attempt: Attempt) -> None:
        """It is to run together with others: it waits for them, and its slot goes on."""
        self._running.discard(attempt)
        many, entry = attempt.many, attempt.entry
        if self._stopping or many is None or entry is None:
            self._hand_back([attempt])
            return
        self._appetite.lent = min(self._appetite.lent + 1, many.size)
        self._gatherer.add(attempt, entry, many)
        self._poke()

    async def _together(self, crowd: Crowd, slot: asyncio.Task[None] | None) -> None:
        """Run a crowd. Each member ends as soon as its own end is known."""
        if (self._ripe or self._buffer) and self._waiting:
            self._wake_one()
        crowd.slot = slot
        crowd.began = mono()
        self._running.add(crowd)
        try:
            await self._perform_many(crowd, self._one_over)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and self.is_ending():
                raise
            log.exception("the runner failed on %d jobs, %s among them", len(crowd.members), crowd.leased.id)
        self._free(crowd)
        for member in crowd.members:
            if self._held.get(member.leased.id) is member:  # a fault of ours, as above
                self._one_over(member, None)
        self._poke()

    def _one_over(self, member: Attempt, end: AttemptEnd | None) -> None:
        self.done += 1
        self._drop(member, end)

    # --- handing back --------------------------------------------------------------------------------------------

    def hand_back(self) -> None:
        """Give jobs that are in no slot back to where they stood. Not an attempt."""
        self._hand_back([*self._take_buffer(), *self._gatherer.take_all()])

    def _take_buffer(self) -> list[Attempt]:
        taken = list(self._buffer)
        self._buffer.clear()
        return taken

    def _hand_back(self, attempts: list[Attempt]) -> None:
        for attempt in attempts:
            attempt.begin()
            account = Account(attempt.leased, "", self._worker, attempt.wait, 0.0, 0.0)
            self._drop(attempt, decide(Stopped("release", "handed back"), RELEASE, account))

    # --- the clock -----------------------------------------------------------------------------------------------

    async def _clock(self) -> None:
        expected = mono() + TICK_SECONDS
        done, busy, at = 0, 0.0, mono()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = mono()
            self._lag(now - expected)
            for attempt in list(self._running):
                if attempt.deadline and now >= attempt.deadline:
                    self._overdue(attempt, now)
                elif attempt.stop == "cancelled" and now >= attempt.told + self._grace:
                    self._unheeded(attempt, now)
            # Slow jobs hold all slots: let another worker have those that wait for one.
            if self._buffer and now - self._buffer[0].fetched > STALE_BUFFER_SECONDS:
                self._hand_back(self._take_buffer())
            if self._ripe and now - self._ripe[0].ripe_since > STALE_BUFFER_SECONDS:
                self._hand_back(self._gatherer.take_ripe())
            spent = self.busy_seconds + sum(now - a.began for a in self._running)
            self._appetite.ran(self.done - done, spent - busy, now - at)
            done, busy, at = self.done, spent, now
            expected = mono() + TICK_SECONDS

    def _lag(self, late: float) -> None:
        if not self._bus.wants(LoopLagged):
            return
        late = max(0.0, late)
        suspects: tuple[str, ...] = ()
        if late > LAG_REPORT_SECONDS:
            suspects = tuple(sorted({a.entry.name for a in self._running if a.entry is not None and a.entry.is_async}))
        self._bus.emit(LoopLagged(self._worker, late, suspects))

    def _overdue(self, attempt: Attempt, now: float) -> None:
        if not attempt.stop:
            attempt.interrupt("timeout")
        elif not attempt.overran and now >= attempt.deadline + self._grace:
            attempt.overran = True
            self.unstoppable += 1
            leased = attempt.leased
            name = attempt.entry.name if attempt.entry is not None else ""
            log.error("job %s (%s) ignores its timeout of %g s", leased.id, name, attempt.timeout)
            self._bus.emit(JobOverran(leased.id, leased.queue, name, self._worker, now - attempt.began))
            attempt.give_up()

    def _unheeded(self, attempt: Attempt, now: float) -> None:
        """Say, once, that it goes on though it was cancelled. Its timeout will end it."""
        attempt.told = math.inf
        leased, name = attempt.leased, attempt.entry.name if attempt.entry is not None else ""
        log.error("job %s (%s) ignores that it was cancelled %g s ago", leased.id, name, self._grace)
        self._bus.emit(JobOverran(leased.id, leased.queue, name, self._worker, now - attempt.began))

    def busy_now(self) -> float:
        """Slot-seconds spent so far, those of running attempts included."""
        now = mono()
        return self.busy_seconds + sum(now - a.began for a in list(self._running))

    # --- orders --------------------------------------------------------------------------------------------------

    def interrupt(self, job_id: str, why: str) -> None:
        """Stop one job: cancelled, or lost."""
        attempt = self._held.get(job_id)
        if attempt is None or attempt.stop:
            return
        if why == "lost":
            name = attempt.entry.name if attempt.entry is not None else ""
            self._bus.emit(LeaseLost(job_id, attempt.leased.queue, name, self._worker))
        attempt.interrupt(why)
        if why == "cancelled" and attempt.ctx is not None:
            self._acknowledge(attempt.ctx)
        if attempt.crowd is not None:
            attempt.crowd.look()

    def started(self, attempt: Attempt) -> None:
        """The handler is about to run."""
        if self._stopping and attempt.ctx is not None:
            attempt.ctx.prepare_to_stop()
        self.table.start(attempt.place, attempt.deadline, attempt.began)

    def extended(self, job_id: str, by: float) -> None:
        """A handler asked for more time."""
        attempt = self._held.get(job_id)
        if attempt is not None:
            attempt.deadline += by
            attempt.timeout += by
            self.table.extend(attempt.place, attempt.deadline)
            if attempt.crowd is not None:
                attempt.crowd.extend()
                for member in attempt.crowd.members:
                    if self._held.get(member.leased.id) is member:
                        self.table.extend(member.place, member.deadline)

    def cut_short(self) -> None:
        """End the waiting of ``stop``."""
        self._hurry.set()

    def take_no_more(self) -> None:
        """Hand back what is buffered, and what is still accepted."""
        self._stopping = True
        for attempt in self._held.values():
            if attempt.ctx is not None:
                attempt.ctx.prepare_to_stop()
        self.hand_back()

    async def idle(self) -> None:
        """Wait until nothing is held any more."""
        await self._idle.wait()

    async def stop(self, patience: float) -> tuple[int, int]:
        """Hand back what is buffered, wait for what runs, then hand that back too. Answers how many ended by themselves
        and how many were cut off."""
        self.take_no_more()
        running = _jobs(self._running)
        await self._quiet(patience, self._hurry)
        cut = [a for a in self._running if not a.stop]
        for attempt in cut:
            attempt.interrupt("shutdown")
        if self._running:
            await self._quiet(min(self._grace, 2.0))
        if self._running:
            log.error("%d jobs ignore the shutdown; they are given up", _jobs(self._running))
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks, timeout=2.0)
        return running - _jobs(cut), _jobs(cut)

    async def _quiet(self, patience: float, or_else: asyncio.Event | None = None) -> None:
        """Wait until nothing is held any more, at most so many seconds, or until ``or_else`` is set."""
        waits = [asyncio.create_task(event.wait()) for event in (self._idle, or_else) if event is not None]
        await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


def _jobs(runs: Iterable[Attempt]) -> int:
    return sum(len(run.members) if isinstance(run, Crowd) else 1 for run in runs)
