"""Jobs in: leases as many as the worker has an appetite for, as soon as it has one.

While a fetch is in flight, runners work on what the last one brought. Idle, the worker blocks on the wake lists; the poll is
the safety net.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence

from rf_jobs.core import transitions
from rf_jobs.core.lifecycle import Lifecycle
from rf_jobs.model.events import JobsFetched
from rf_jobs.store.redis import pause_before
from rf_jobs.store.shapes import Fetched
from rf_jobs.words.errors import RfJobsError
from rf_jobs.words.timing import mono
from rf_jobs.worker.appetite import Appetite
from rf_jobs.worker.config import QueueOrder
from rf_jobs.worker.patience import PATIENCE_SECONDS, Failures

log = logging.getLogger("rf_jobs.worker")


class Fetcher:
    """``run`` and ``wait_for_wakes`` go on until ``stop_fetching``, or until they are cancelled. ``room`` is how many more
    leases can be held."""

    def __init__(
        self, lifecycle: Lifecycle, worker: str, order: QueueOrder, appetite: Appetite, *, lease_ms: int, ageing_ms: int, sleep: float,
        running: Callable[[], int], buffered: Callable[[], int], room: Callable[[], int],
        deliver: Callable[[Fetched], None],
    ) -> None:  # fmt: skip
        self._lifecycle = lifecycle
        self._worker = worker
        self._order = order
        self._appetite = appetite
        self._lease_ms = lease_ms
        self._ageing_ms = ageing_ms
        self._sleep = sleep
        self._running = running
        self._buffered = buffered
        self._room_left = room
        self._deliver = deliver
        self._nonces: dict[int, int] = {}
        """By shard."""
        self._news = asyncio.Event()
        self._dry = asyncio.Event()
        """Set while the last fetch came back short: wait for a wake-up before asking again."""
        self._room = asyncio.Event()
        """Set when a slot may have become free."""
        self._idle_for = sleep
        self._fetching = True
        self._failures = Failures()
        self.last_progress = mono()
        """When the server last answered a fetch (monotonic)."""

    def poke(self) -> None:
        """A slot became free, or something else changed."""
        self._news.set()
        self._room.set()

    def stop_fetching(self) -> None:
        """Ask for no more jobs. What a fetch that is under way brings is still delivered, then ``run`` ends."""
        self._fetching = False
        self._news.set()

    async def run(self) -> None:
        """Fetch whenever there is room and something may be there."""
        while self._fetching:
            self._news.clear()
            wanted = 0 if self._dry.is_set() else self._wanted()
            if wanted:
                await self._fetch(wanted)
            else:
                # Whoever makes room says so; looking again now and then keeps a worker from falling silent all the same.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._sleep):
                        await self._news.wait()

    def _wanted(self) -> int:
        return min(self._appetite.wanted(self._running(), self._buffered()), self._room_left())

    async def _fetch(self, wanted: int) -> None:
        """From one shard after the other, in the order of the queues, until that is enough."""
        due_in = self._sleep
        for queues in self._order.runs(self._lifecycle.store.shards):
            fetched = await self._fetch_some(wanted, queues)
            if fetched is None:
                return
            wanted -= len(fetched.jobs)
            if fetched.jobs:
                self._deliver(fetched)
            if not wanted:
                break
            if fetched.next_due_ms >= 0:
                due_in = min(due_in, max(0.0, (fetched.next_due_ms - fetched.now_ms) / 1000))
        self._fetched(due_in, enough=not wanted)

    async def _fetch_some(self, wanted: int, queues: Sequence[str]) -> Fetched | None:
        # The same nonce until it is answered: a fetch sent again gets the jobs that the first one leased.
        shard = self._lifecycle.store.shards.of(queues[0])
        nonce = self._nonces.get(shard, 0) + 1
        step = transitions.fetch(
            self._lifecycle.store.commands,
            self._worker,
            nonce,
            wanted,
            self._lease_ms,
            queues,
            self._ageing_ms,
        )
        try:
            fetched = await self._lifecycle.apply(step, retry_for=PATIENCE_SECONDS)
        except Exception as error:  # of whatever kind: a worker that fetches no more would be silent for ever
            if not isinstance(error, RfJobsError):
                log.exception("a fetch failed by a fault of ours")
            await self._failed(error)
            return None
        self._failures.end()
        self._nonces[shard] = nonce
        return fetched

    async def _failed(self, error: Exception) -> None:
        """The server could not be reached, or refused. Jobs that run go on; keep trying, with pauses."""
        self._failures.add(str(error))
        self._lifecycle.bus.emit(JobsFetched(self._worker, 0, type(error).__name__))
        await self._failures.pause()

    def _fetched(self, due_in: float, *, enough: bool) -> None:
        self.last_progress = mono()
        if enough:
            self._dry.clear()
        else:
            self._idle_for = min(due_in, self._sleep * random.uniform(0.8, 1.2))  # noqa: S311 (spreads polls)
            self._dry.set()

    async def wait_for_wakes(self) -> None:
        """While the queues are dry and there is room: block until a queue gets a job, the next delayed one is due, or the
        poll is."""
        failures = 0
        while self._fetching:
            await self._dry.wait()
            if not self._has_room():
                # Who listens without room takes wake-ups away from those who have it.
                self._room.clear()
                await self._room.wait()
                continue
            try:
                # A block of 0 would never end; the server counts in milliseconds.
                queue = await self._lifecycle.store.wait_for_wake(self._order.names, max(0.002, self._idle_for))
                if queue is not None and not self._has_room():
                    await self._lifecycle.store.pass_on(queue)
                failures = 0
            except asyncio.CancelledError:
                raise
            except Exception as error:  # whatever the connection does: the poll is the truth
                task = asyncio.current_task()
                if task is not None and task.cancelling():  # a connection that is closed may swallow the cancellation
                    raise asyncio.CancelledError from error
                failures += 1
                log.debug("waiting for a wake-up failed: %s", error)
                await asyncio.sleep(min(self._idle_for, pause_before(failures)))
            self._dry.clear()
            self._news.set()

    def _has_room(self) -> bool:
        return self._wanted() > 0
