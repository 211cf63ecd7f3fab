"""What a worker does beside its jobs: heartbeats, taking back the jobs of the dead, looking after parked jobs."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import threading
from collections.abc import Callable
from typing import Any

from rf_jobs.client.manager import QueueManager
from rf_jobs.client.offload import Offload
from rf_jobs.core import transitions
from rf_jobs.core.lifecycle import Lifecycle
from rf_jobs.model import envelope
from rf_jobs.model.jobclass import Registry
from rf_jobs.store.calls import Arg
from rf_jobs.store.keys import shards_of
from rf_jobs.store.redis import SyncStore
from rf_jobs.store.shapes import Beaten, Retention
from rf_jobs.words.config_settings import WorkerSettings
from rf_jobs.words.errors import RfJobsError
from rf_jobs.words.states import State
from rf_jobs.words.timing import mono, now_ms
from rf_jobs.words.version import package_version
from rf_jobs.worker.leases import STARTED, STATE_NAMES, Held, LeaseTable, Pulse

log = logging.getLogger("rf_jobs.worker")
BEAT_SECONDS = 1.0
"""Between two heartbeats of a worker that holds jobs: it is told of cancellations with them."""
IDLE_BEAT_SECONDS = 5.0
RECLAIM_LIMIT = 100


class Beater:
    """Sends a worker's heartbeats from what its lease table says; used by a thread of the worker's own process, or by
    the supervisor for its child. Leases follow liveness: only jobs inside their timeout and grace are extended."""

    def __init__(
        self, store: SyncStore, table: LeaseTable, *, lease: float, grace: float, facts: dict[str, Arg]
    ) -> None:
        self._store = store
        self._table = table
        self._lease = lease
        self._grace = grace
        self._facts = facts
        self._extended = 0.0
        self._busy_seconds = 0.0
        self._at = mono()
        self.failures = 0
        """Beats in a row that failed."""
        self.unextended = 0
        """Extensions of leases that failed with their beats, in all."""

    @property
    def pause(self) -> float:
        """Seconds until the next beat is due: sooner while there are jobs that might be cancelled."""
        return BEAT_SECONDS if self._table.holds_any() else max(BEAT_SECONDS, min(self._lease / 3, IDLE_BEAT_SECONDS))

    def beat(self) -> Beaten | None:
        """One heartbeat; every third of a lease it extends the leases. None where the server could not be reached."""
        now = mono()
        pulse = self._table.pulse()
        extend = now - self._extended >= self._lease / 3 - BEAT_SECONDS / 2
        held = [h for h in self._table.held() if self._alive(h, now)] if extend else []
        lease_ms = round(self._lease * 1000)
        call = self._store.commands.beat(
            pulse.worker, lease_ms, lease_ms, self._news(pulse, now), ((h.queue, h.id, h.token) for h in held),
            self._table.queues,
        )  # fmt: skip
        try:
            beaten = self._store.run(call, retry_for=0.0)
        except RfJobsError as error:
            self.failures += 1
            self.unextended += len(held)
            if self.failures in (1, 10, 100):
                log.warning("heartbeat failed: %s; trying again each second", error)
            return None
        self.failures = 0
        if extend:
            self._extended = now
        return beaten

    def close(self) -> None:
        """Close the connection, where nobody else uses the store."""
        self._store.close()

    def _alive(self, held: Held, now: float) -> bool:
        return held.state != STARTED or now < held.deadline + self._grace

    def _news(self, pulse: Pulse, now: float) -> dict[str, Arg]:
        elapsed = max(now - self._at, 0.001)
        utilization = (pulse.busy_seconds - self._busy_seconds) / elapsed / max(pulse.slots, 1)
        self._at, self._busy_seconds = now, pulse.busy_seconds
        return {
            **self._facts,
            "slots": pulse.slots,
            "busy": pulse.busy,
            "buffered": pulse.buffered,
            "done": pulse.done,
            "state": STATE_NAMES[pulse.state],
            "utilization": f"{min(1.0, max(0.0, utilization)):.4f}",
            "port": pulse.port,
            "oldest": ",".join(f"{queue}={(now - at) * 1000:.0f}" for queue, at in self._table.oldest().items()),
        }


def worker_facts(queues: tuple[str, ...], pid: int | None = None) -> dict[str, Arg]:
    """What a worker says of itself with each heartbeat."""
    return {
        "host": socket.gethostname(),
        "pid": pid or os.getpid(),
        "queues": ",".join(queues),
        "started": now_ms(),
        "version": package_version(),
    }


class BeatThread:
    """Heartbeats of an in-process worker, on a thread and a connection of their own, so that a handler that blocks the
    event loop does not lose its jobs. Starts with ``start``, ends with ``stop``; when its process is stopped by C code
    that holds the GIL it stops too: run ``rf-jobs worker`` for that."""

    def __init__(self, beater: Beater, deliver: Callable[[Beaten | None, int], None]) -> None:
        self._beater = beater
        self._deliver = deliver
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rf-jobs-beat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def _run(self) -> None:
        while True:
            self._deliver(self._beater.beat(), self._beater.unextended)
            if self._wait():
                self._beater.close()
                return

    def _wait(self) -> bool:
        """Until the next beat is due; a job that is fetched meanwhile makes it due within a second."""
        since = mono()
        while not self._end.wait(BEAT_SECONDS):
            if mono() - since >= self._beater.pause - BEAT_SECONDS / 2:
                return False
        return True

    def give_up(self) -> None:
        """End after this beat; for the thread itself."""
        self._end.set()

    def stop(self) -> None:
        """End, after the beat that may be under way."""
        self._end.set()
        self._thread.join()


def start_beats(
    manager: QueueManager, table: LeaseTable, settings: WorkerSettings, queues: tuple[str, ...],
    on_beat: Callable[[Beaten | None, int], None],
) -> BeatThread:  # fmt: skip
    """Begin the heartbeats of a worker on this event loop, which hears of each."""
    jobs = manager.settings.jobs
    store = SyncStore(jobs.redis_url, shards_of(jobs), allow_eviction=manager.settings.security.allow_evicting_server)
    store.surround = manager.store.surround
    loop = asyncio.get_running_loop()
    lease, grace = settings.lease_seconds, settings.grace_seconds
    beater = Beater(store, table, lease=lease, grace=grace, facts=worker_facts(queues))

    def on_loop(call: Callable[..., None], *args: Any) -> None:
        try:
            loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # it ended without a shutdown: nobody works on these jobs any more
            beats.give_up()

    store.observer = lambda *told: on_loop(manager.store.observer, *told)
    beats = BeatThread(beater, lambda beaten, unextended: on_loop(on_beat, beaten, unextended))
    beats.start()
    return beats


class Caretaker:
    """Periodic duties on the store that any worker does for its queues; harmless when many do them at once."""

    def __init__(
        self, lifecycle: Lifecycle, registry: Registry, queues: tuple[str, ...], retention: Retention, *,
        max_crashes: int, park_ttl: float, every: float, offload: Offload, on_dead: Callable[[str, str, int, int], None],
    ) -> None:  # fmt: skip
        self._on_dead = on_dead
        self._offload = offload
        self._lifecycle = lifecycle
        self._commands = lifecycle.store.commands
        self._registry = registry
        self._queues = queues
        self._retention = retention
        self._max_crashes = max_crashes
        self._park_ttl_ms = round(park_ttl * 1000)
        self.every = every
        self._parked_from: dict[str, int] = {}

    def pause(self) -> float:
        """Seconds until the next round, spread so that workers do not march in step."""
        return self.every * random.uniform(0.8, 1.2)  # noqa: S311

    async def round(self) -> None:
        """Reclaim, unpark, bury what was parked too long, forget silent workers. Raises ``BackendError``."""
        while True:
            taken = await self._lifecycle.apply(
                transitions.reclaim(self._commands, RECLAIM_LIMIT, self._max_crashes, self._retention, self._queues)
            )
            for job in taken:
                log.warning(
                    "took back job %s on %r from a worker that fell silent (crash %d)", job.id, job.queue, job.crashes
                )
                if job.state == State.DEAD:
                    self._on_dead(job.queue, job.id, job.attempt, job.crashes)
            if len(taken) < RECLAIM_LIMIT:
                break
        await self._lifecycle.settle()
        for queue in self._queues:
            await self._parked(queue)
        await self._offload.sweep_now_and_then()

    async def _parked(self, queue: str) -> None:
        total = await self._lifecycle.store.run(self._commands.count(State.PARKED, queue))
        if not total:
            return
        await self._lifecycle.apply(
            transitions.bury_parked(self._commands, queue, self._park_ttl_ms, RECLAIM_LIMIT, self._retention)
        )
        start = self._parked_from.get(queue, 0)
        listed = await self._lifecycle.store.run(self._commands.range(State.PARKED, queue, start, 200))
        self._parked_from[queue] = start + len(listed) if len(listed) == 200 else 0
        ids = [job_id for job_id, _ in listed]
        found = await self._lifecycle.store.run(self._commands.envelopes(ids)) if ids else []
        known = {
            job_id: job_class for job_id, data in zip(ids, found, strict=True) if (job_class := self._served(data))
        }
        if known:
            await self._lifecycle.apply(transitions.unpark(self._commands, queue, known))
            self._parked_from[queue] = 0

    def _served(self, data: bytes | None) -> str:
        """The class of a parked job that this worker can run; '' of another."""
        letter = envelope.readable(data)
        entry = self._registry.find(letter.job) if letter is not None else None
        if data is None or letter is None or entry is None or letter.ver > entry.version:
            return ""
        return letter.job if self._offload.serves(letter, data, entry) else ""
