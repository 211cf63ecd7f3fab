"""``WorkerPool``: a worker in this process."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, Self

from rf_jobs.client.ear import Ear
from rf_jobs.client.manager import QueueManager
from rf_jobs.core.transitions import AttemptEnd
from rf_jobs.model.events import JobReclaimed, WorkerBeat, WorkerStarted, WorkerStopped, WorkerStopping
from rf_jobs.model.jobclass import Registry, registry
from rf_jobs.store.keys import STOP_CHANNEL
from rf_jobs.store.shapes import Beaten
from rf_jobs.words.errors import ConfigError, RfJobsError, WorkerError
from rf_jobs.words.ids import new_token
from rf_jobs.words.timing import Duration, mono, seconds
from rf_jobs.worker.advertiser import Advertiser
from rf_jobs.worker.appetite import Appetite
from rf_jobs.worker.attempt import Attempt
from rf_jobs.worker.brakes import Brakes
from rf_jobs.worker.capture import Capture
from rf_jobs.worker.config import QueueOrder, WorkerConfig
from rf_jobs.worker.crowd_runner import CrowdRunner
from rf_jobs.worker.desk import StoreDesk
from rf_jobs.worker.engine import Engine
from rf_jobs.worker.fetcher import Fetcher
from rf_jobs.worker.finisher import Finisher
from rf_jobs.worker.job_process import JobProcesses
from rf_jobs.worker.leases import QUIET, RUNNING, STOPPING, STUCK, LeaseTable, Pulse
from rf_jobs.worker.obituaries import Obituaries
from rf_jobs.worker.plans import Defaults
from rf_jobs.worker.reports import Reporter
from rf_jobs.worker.threads import Threads
from rf_jobs.worker.upkeep import BEAT_SECONDS, BeatThread, Caretaker, start_beats

log = logging.getLogger("rf_jobs.worker")


def table_capacity(config: WorkerConfig) -> int:
    """Records that a worker's lease table needs."""
    settings = config.settings
    # Two fetches' worth of room: leases that are being ended while the next are accepted.
    return settings.workers * settings.max_concurrent_jobs + settings.max_prefetch + 1000


class WorkerPool:
    """Runs jobs in this process, on this event loop: ``async with WorkerPool(config, manager): ...``.

    ``start`` makes contact and begins; ``shutdown`` stops fetching, hands buffered jobs back, waits for the running ones
    as long as ``shutdown_timeout``, hands the rest back (not an attempt) and ends. Its leases are extended by a thread;
    for several processes, and leases that survive C code holding the GIL, run ``rf-jobs worker``, which gives each pool
    a supervisor.
    """

    def __init__(
        self,
        config: WorkerConfig | None = None,
        manager: QueueManager | None = None,
        *,
        registry: Registry = registry,
        table: LeaseTable | None = None,
    ) -> None:
        self.config = config or WorkerConfig.default()
        settings = self.config.settings
        if settings.processes > 1 and table is None:
            raise ConfigError(
                f"processes is {settings.processes}: a WorkerPool runs in one process;"
                " run `rf-jobs worker --processes N`, or rf_jobs.Supervisor, for more"
            )
        self._own_manager = manager is None
        self.manager = manager or QueueManager()
        jobs = self.manager.settings.jobs
        self.id = f"w{new_token()}"
        self.slots = settings.workers * settings.max_concurrent_jobs
        self._order = QueueOrder(settings.queues, jobs.default_queue)
        self.queues = self._order.names
        self._supervised = table is not None
        self._table = table or LeaseTable(table_capacity(self.config), self.queues)
        self._registry = registry
        self._defaults = Defaults(
            jobs.max_attempts,
            jobs.backoff_seconds,
            settings.timeout_seconds or jobs.timeout_seconds,
            round(jobs.result_ttl_seconds * 1000),
            settings.max_crashes,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._beats: BeatThread | None = None
        self._state = 0
        self.port = 0
        """Where this worker serves its metrics and probes, once somebody said so; told with each heartbeat."""
        self._instance = ""
        self._lost = 0
        """Leases that were found lost."""
        self._unextended = 0
        """Extensions of leases that failed with their heartbeats."""
        self._stuck = False
        self._closing = False

    # --- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make contact and begin to fetch. Raises ``BackendError`` where the server is not fit, ``ConfigError`` where
        the payload store can't be had, ``WorkerError`` when called twice."""
        if self._state:
            raise WorkerError("this pool was started before; make a new one")
        await self.manager.store.connect()
        self.manager.offload.find_store()
        self._assemble()
        await self._advertiser.tell()
        await self.manager.placer.claim_queues(self.queues)
        await self._brakes.start()
        self._state = RUNNING
        self._report()
        if not self._supervised:
            self._beats = start_beats(self.manager, self._table, self.config.settings, self.queues, self.on_beat)
        if self.manager.settings.jobs.capture_logging:
            self._capture.start()
        self._engine.start()
        self._finish_task = self._spawn("finish", self._finisher.run())
        self._fetch_task = self._spawn("fetch", self._fetcher.run())
        self._wake_task = self._spawn("wake", self._fetcher.wait_for_wakes())
        self._tasks.append(self._spawn("care", self._care()))
        self._tasks.append(self._spawn("pulse", self._pulse()))
        self._tasks.append(self._spawn("hear", self._hear()))
        self.manager.bus.emit(WorkerStarted(self.id, self.queues, self.slots))
        log.info("worker %s serves %s with %d slots", self.id, ", ".join(self.queues), self.slots)

    def _assemble(self) -> None:
        settings, manager = self.config.settings, self.manager
        self._threads = Threads(self.slots)
        appetite = Appetite(self.slots, settings.max_prefetch)
        self._capture = Capture(self.id)
        self._ear = Ear(manager.store, STOP_CHANNEL)
        self._reporter = Reporter(manager.lifecycle, manager.settings.jobs)
        self._isolation = JobProcesses(manager.settings, self.slots, self._reporter, manager.bus)
        self._advertiser = Advertiser(manager.store, self.id, self._registry)
        self._brakes = Brakes(manager, self._registry)
        desk = StoreDesk(manager, self._reporter, lambda ctx, by: self._engine.extended(ctx.id, by))
        runner = CrowdRunner(
            worker=self.id, registry=self._registry, defaults=self._defaults, middleware=manager.middleware, bus=manager.bus,
            desk=desk, threads=self._threads, isolation=self._isolation, on_start=self._started,
            is_ending=self._is_ending, offload=manager.offload, captures=manager.settings.jobs.capture_logging,
        )  # fmt: skip
        self._engine = Engine(
            self.slots, self._table, appetite, manager.bus, self.id, settings.grace_seconds, runner.perform,
            runner.perform_many, self._ended, self._poke, self._reporter.acknowledge,
        )  # fmt: skip
        self._finisher = Finisher(manager.lifecycle, manager.retention, self._settled)
        self._fetcher = Fetcher(
            manager.lifecycle, self.id, self._order, appetite, lease_ms=round(settings.lease_seconds * 1000),
            ageing_ms=round(settings.ageing_seconds * 1000),
            sleep=settings.sleep_seconds, running=self._engine.running, buffered=self._engine.in_line,
            room=lambda: self._table.room, deliver=self._engine.accept,
        )  # fmt: skip
        self._obituaries = Obituaries(manager, runner.tell_buried)
        self._caretaker = Caretaker(
            manager.lifecycle, self._registry, self.queues, manager.retention,
            max_crashes=settings.max_crashes, park_ttl=settings.park_ttl_seconds, every=settings.lease_seconds / 3,
            offload=manager.offload, on_dead=self._obituaries.write,
        )  # fmt: skip

    # The engine and the fetcher each call the other; these stand between them.
    def _started(self, attempt: Attempt) -> None:
        self._engine.started(attempt)

    def _is_ending(self) -> bool:
        return self._engine.is_ending()

    def _ended(self, end: AttemptEnd, place: int) -> None:
        self._finisher.ended(end, place)
        self._fetcher.poke()

    def _settled(self, places: Sequence[int]) -> None:
        for place in places:
            self._table.remove(place)
        self._fetcher.poke()  # the table has room again

    def _poke(self) -> None:
        self._fetcher.poke()

    def _spawn(self, name: str, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # An empty context: what goes on for ever must not live inside somebody's span.
        return asyncio.create_task(coroutine, name=f"rf-jobs-{name}", context=contextvars.Context())

    def quiet(self) -> None:
        """Take no more jobs, hand the buffered ones back, and stay with those that run, until ``retire`` or ``shutdown``."""
        if self._state == RUNNING:
            self._state = QUIET
            self._report()
            self._fetch_no_more()

    async def retire(self) -> None:
        """Take no more jobs, hand the buffered ones back, and return when those that run have ended by themselves; then it
        is time for ``shutdown``, which may also come before."""
        self._take_no_more()
        await self._engine.idle()

    def _take_no_more(self) -> None:
        if self._state not in (RUNNING, QUIET):
            return
        self._state = STOPPING
        self._report()
        self.manager.bus.emit(WorkerStopping(self.id, self._engine.running()))
        self._fetch_no_more()

    def _fetch_no_more(self) -> None:
        self._fetcher.stop_fetching()
        self._wake_task.cancel()
        self._engine.take_no_more()

    async def shutdown(self, timeout: Duration | None = None) -> None:
        """Stop in stages; ``timeout`` instead of ``shutdown_timeout`` is how long running jobs may take, in seconds or as a
        timedelta."""
        usual = self.config.settings.shutdown_timeout_seconds
        patience = usual if timeout is None else seconds(timeout, "the timeout of shutdown")
        if not self._state or self._closing:
            return
        self._closing = True
        bus = self.manager.bus
        self._take_no_more()
        drained, released = await self._engine.stop(patience)
        try:
            async with asyncio.timeout(5.0):
                await asyncio.shield(self._fetch_task)  # what it may still bring is handed back
                self._finisher.drain()
                await asyncio.shield(self._finish_task)
        except TimeoutError:
            log.error(  # noqa: TRY400 (the traceback would say nothing)
                "%d outcomes could not be delivered; those jobs will be taken back and run again",
                self._finisher.undelivered,
            )
        finally:
            await self._end_tasks()
        bus.emit(WorkerStopped(self.id, drained, released))
        log.info("worker %s stopped: %d jobs finished, %d handed back", self.id, drained, released)
        if self._own_manager:
            await self.manager.aclose()

    async def _end_tasks(self) -> None:
        tasks = [*self._tasks, self._fetch_task, self._finish_task, self._wake_task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._report()
        self._capture.stop()
        self._obituaries.close()
        await self._ear.aclose()
        self._reporter.close()
        await self._brakes.stop()
        self._threads.close()
        self._isolation.close()
        if self._beats is not None:
            await asyncio.to_thread(self._beats.stop)
        try:
            await self.manager.store.run(self.manager.store.commands.bye(self.id), retry_for=0.5)
        except RfJobsError as error:
            log.warning("could not sign off: %s", error)

    def cut_short(self) -> None:
        """Hurry a shutdown that is under way: running jobs are handed back now."""
        self._engine.cut_short()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.shutdown()

    # --- duties --------------------------------------------------------------------------------------------------

    async def _care(self) -> None:
        while True:
            await asyncio.sleep(self._caretaker.pause())
            try:
                await self._advertiser.tell()
                await self._caretaker.round()
            except RfJobsError as error:
                log.warning("upkeep failed: %s; trying again", error)
            except Exception:
                log.exception("upkeep failed")

    async def _hear(self) -> None:
        """Hear of cancellations at once; the heartbeats, which tell of them too, are the truth."""
        async with self._ear.listen(self.id) as box:
            while True:
                self.stop_jobs([], list(await box.take(None)))

    async def _pulse(self) -> None:
        at, busy, told = mono(), 0.0, 0
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self._report()
            now, spent, failures = mono(), self._engine.busy_now(), self._lost + self._unextended
            self.manager.bus.emit(
                WorkerBeat(
                    self.id,
                    self.slots,
                    self._engine.running(),
                    self._engine.buffered(),
                    self.queues,
                    max(0.0, spent - busy),
                    now - at,
                    failures - told,
                )
            )
            at, busy, told = now, spent, failures

    def _report(self) -> None:
        engine = self._engine
        self._table.report(
            Pulse(
                self.id, self.slots, engine.running(), engine.buffered(), STUCK if self._stuck else self._state, engine.done, engine.busy_now(),
                self._fetcher.last_progress, self.port,
            )
        )  # fmt: skip

    def on_beat(self, beaten: Beaten | None, unextended: int) -> None:
        """A heartbeat was answered: stop what was cancelled or lost. None where it failed; ``unextended`` is how many
        extensions of leases have failed so far with heartbeats."""
        self._unextended = unextended
        if beaten is None:
            return
        if self._instance and beaten.instance != self._instance:
            log.error(
                "the server was emptied or replaced (instance %s, was %s); going on with what is there",
                beaten.instance or "none",
                self._instance,
            )
            self._spawn("hello", self._hello())
        if beaten.instance:
            self._instance = beaten.instance
        self.stop_jobs(beaten.lost, beaten.stop)

    async def _hello(self) -> None:
        await self.manager.store.run(self.manager.store.commands.hello(new_token(16)))
        self._advertiser.forget()
        await self._advertiser.tell()

    def tell_buried(self, job: JobReclaimed) -> None:
        """A sibling died over a job for the last time: call its ``failed``."""
        self._obituaries.write(job.queue, job.job_id, job.attempt, job.crashes)

    def stop_jobs(self, lost: list[str], stop: list[str]) -> None:
        """Interrupt jobs whose lease is lost, and those that were cancelled."""
        self._lost += len(lost)
        for job_id in lost:
            self._engine.interrupt(job_id, "lost")
        for job_id in stop:
            self._engine.interrupt(job_id, "cancelled")

    def report_stuck(self) -> None:
        """Tell the supervisor that this process should be replaced."""
        self._stuck = True
        self._report()

    # --- health --------------------------------------------------------------------------------------------------

    def stalled(self) -> str:
        """Why the worker makes no progress; '' while it does. Readiness means progress, not that the process is up."""
        if self._state == QUIET:
            return "the worker is quiet: it takes no more jobs"
        if self._state != RUNNING:
            return "the worker is not running"
        if self._fetch_task.done():
            return "the fetch loop has ended"
        if self._finish_task.done():
            return "the finish loop has ended"
        silent = mono() - self._fetcher.last_progress
        full = self._engine.running() >= self.slots
        limit = 2 * self.config.settings.sleep_seconds + 5
        if silent > limit and not full:
            return f"no fetch was answered for {silent:.0f} s"
        return ""

    @property
    def done(self) -> int:
        """Attempts that ended."""
        return self._engine.done

    @property
    def stuck(self) -> int:
        """Threads that were given up, and coroutines that ignore their cancellation."""
        return self._threads.stuck + self._engine.unstoppable
