"""Reads the store for a scrape: a survey of all queues, the fleet's flushed metrics, the workers' heartbeats, the server, and
now and then the queues' sizes.

The readings stand side by side, each with its own errors: where one fails its families are left out of that scrape (what is
not known is not shown as if it were), the others stay. The cost does not grow with the number of jobs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from rf_jobs.client.manager import QueueManager
from rf_jobs.store.server import SAFE_POLICY
from rf_jobs.telemetry import names
from rf_jobs.telemetry.exposition import Reading, build_info, read_flushed
from rf_jobs.words.errors import RfJobsError
from rf_jobs_exporter.queues import queue_readings
from rf_jobs_exporter.schedules import MOST_SCHEDULES, schedule_readings
from rf_jobs_exporter.workers import WorkerGauges
from rf_jobs_exporter.workflows import workflow_readings

log = logging.getLogger("rf_jobs.exporter")
READ_SECONDS = 5.0
"""A reading that takes longer is given up: Prometheus waits ten seconds by default."""
MEMORY_SECONDS = 60.0
"""How old the queues' sizes may be: they cost more than all the rest."""
RETRY_SECONDS = 0.3
"""How long the manager should try: the next scrape comes by itself."""


@dataclass
class Snapshot:
    """What one reading of the store brought."""

    readings: list[Reading] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Stages that failed, and why."""
    taken: float = 0.0
    """Monotonic seconds; 0 for none."""


class Collector:
    """Keeps the last snapshot for ``cache_seconds``, so that several scrapers cost as much as one."""

    def __init__(self, manager: QueueManager, cache_seconds: float) -> None:
        self._manager = manager
        self._cache = cache_seconds
        self._reading = asyncio.Lock()
        self._snapshot = Snapshot()
        self._errors: dict[str, int] = dict.fromkeys(names.COLLECT_STAGES, 0)
        self._took = 0.0
        self._known_queues: tuple[str, ...] = ()
        self._sizes: list[Reading] = []
        self._sized = -MEMORY_SECONDS
        self.last_success = 0.0
        """Unix time of the last reading in which no stage failed."""

    async def snapshot(self) -> Snapshot:
        """The store's state, at most ``cache_seconds`` old. Never raises: what failed is in it."""
        async with self._reading:
            if not self._snapshot.taken or time.monotonic() - self._snapshot.taken > self._cache:
                self._snapshot = await self._read()
            return self._snapshot

    async def _read(self) -> Snapshot:
        began = time.perf_counter()
        snapshot = Snapshot()
        workers, flushed, schedules, workflows, server, sizes = await asyncio.gather(
            self._stage(snapshot, "workers", self._workers),
            self._stage(snapshot, "metrics", self._flushed),
            self._stage(snapshot, "schedules", self._schedules),
            self._stage(snapshot, "workflows", self._workflows),
            self._stage(snapshot, "redis", self._server),
            self._stage(snapshot, "memory", self._memory),
        )
        # Queues that only a worker has named are queues too, so the survey comes last.
        queues = await self._stage(snapshot, "survey", self._queues)
        snapshot.readings = [*workers, *flushed, *schedules, *workflows, *server, *sizes, *queues]
        self._took = time.perf_counter() - began
        snapshot.taken = time.monotonic()
        # Good to know, and forbidden on some servers: without it the store is read all the same.
        snapshot.failed.pop("memory", None)
        if not snapshot.failed:
            self.last_success = time.time()
        snapshot.readings += self._own()
        return snapshot

    async def _stage(
        self, snapshot: Snapshot, stage: str, read: Callable[[], Awaitable[Iterable[Reading]]]
    ) -> list[Reading]:
        try:
            async with asyncio.timeout(READ_SECONDS):
                return list(await read())
        except (RfJobsError, TimeoutError) as error:
            snapshot.failed[stage] = str(error) or f"no answer within {READ_SECONDS:g} s"
        except Exception as error:  # a store that holds nonsense must not blind the other stages
            snapshot.failed[stage] = repr(error)
            log.exception("reading %s failed", stage)
        self._errors[stage] += 1
        many = self._errors[stage]
        log.log(
            logging.WARNING if many <= 3 or many % 100 == 0 else logging.DEBUG,
            "reading %s failed: %s", stage, snapshot.failed[stage],
        )  # fmt: skip
        return []

    # --- the stages ----------------------------------------------------------------------------------------------

    async def _run(self, *calls: Any) -> list[Any]:
        return await self._manager.store.run_many(list(calls))

    async def _queues(self) -> Iterable[Reading]:
        (survey,) = await self._run(self._manager.store.commands.survey())
        objective = self._manager.settings.jobs.queue_age_objective_seconds
        return queue_readings(survey, self._known_queues, objective)

    async def _workers(self) -> Iterable[Reading]:
        gauges = WorkerGauges(await self._manager.inspector.workers())
        self._known_queues = gauges.queues
        return gauges.readings()

    async def _flushed(self) -> Iterable[Reading]:
        commands = self._manager.store.commands
        increments, exemplars = await self._run(commands.metrics(), commands.exemplars())
        flushed = read_flushed(increments, exemplars)
        if flushed.ignored:
            log.debug("%d fields of the flushed metrics are of another version, or damaged", flushed.ignored)
        # Gauges are never flushed; one in the hash would be another version's.
        return [each for each in flushed.readings if each.metric.kind in ("counter", "histogram")]

    async def _schedules(self) -> Iterable[Reading]:
        (survey,) = await self._run(self._manager.schedules.calls.survey(MOST_SCHEDULES))
        return schedule_readings(survey)

    async def _workflows(self) -> Iterable[Reading]:
        return await workflow_readings(self._manager)

    async def _server(self) -> Iterable[Reading]:
        (info,) = await self._run(self._manager.store.commands.info())
        policy = str(info.get("maxmemory_policy", SAFE_POLICY))
        version = str(info.get("valkey_version") or info.get("redis_version") or "")
        return [
            Reading(names.REDIS_USED_MEMORY, (), float(info.get("used_memory", 0))),
            Reading(names.REDIS_MAX_MEMORY, (), float(info.get("maxmemory", 0))),
            Reading(names.REDIS_EVICTED_KEYS, (), float(info.get("evicted_keys", 0))),
            Reading(names.REDIS_CLIENTS, (), float(info.get("connected_clients", 0))),
            Reading(names.REDIS_EVICTS, (), float(policy != SAFE_POLICY)),
            Reading(names.REDIS_REPLICATION_LAG, (), replication_lag(info)),
            build_info(version),
        ]

    async def _memory(self) -> Iterable[Reading]:
        if time.monotonic() - self._sized >= MEMORY_SECONDS:
            (sizes,) = await self._run(self._manager.store.commands.memory())
            self._sizes = [Reading(names.QUEUE_MEMORY, (queue,), float(size)) for queue, size in sizes.items()]
            self._sized = time.monotonic()
        return self._sizes

    def _own(self) -> list[Reading]:
        return [
            Reading(names.EXPORTER_COLLECT, (), self._took),
            Reading(names.EXPORTER_LAST_SUCCESS, (), self.last_success),
            *(Reading(names.EXPORTER_ERRORS, (stage,), float(count)) for stage, count in self._errors.items()),
        ]


def replication_lag(info: dict[str, Any]) -> float:
    """Seconds, from the server's INFO: a master's slowest replica, or how long a replica has not heard of its master."""
    replicas = [each for name, each in info.items() if name.startswith("slave") and isinstance(each, dict)]
    lags = [float(each.get("lag", 0)) for each in replicas]
    return max([*lags, float(info.get("master_last_io_seconds_ago", 0)), 0.0])
