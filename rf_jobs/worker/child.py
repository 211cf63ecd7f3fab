"""What a supervised worker process does: one pool on one event loop, and an ear for its supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Coroutine
from typing import Any

import msgspec

from rf_jobs.client.manager import QueueManager
from rf_jobs.worker.commission import NEXT_STAGE, Attach, Commission
from rf_jobs.worker.config import WorkerConfig
from rf_jobs.worker.leases import LeaseTable
from rf_jobs.worker.orders import Order, announce
from rf_jobs.worker.pool import WorkerPool

log = logging.getLogger("rf_jobs.worker")


def run_child(
    commission: Commission, table: LeaseTable, orders: socket.socket, received: bytes, attach: Attach | None
) -> int:
    """Run a pool until it is told to stop, until it was ordered to retire and has, or until the supervisor is gone; answers with
    the exit code. Called with SIGTERM and ``NEXT_STAGE`` blocked, so that none is lost before there is somebody to hear it.
    ``received`` is what came on ``orders`` before. Raises ``RfJobsError`` where the pool cannot start."""
    return _run(_Child(commission, table, orders, received, attach).main())


def _run(main: Coroutine[Any, Any, int]) -> int:
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 (an extra)

        return uvloop.run(main)
    return asyncio.run(main)


class _Child:
    def __init__(
        self, commission: Commission, table: LeaseTable, orders: socket.socket, received: bytes, attach: Attach | None
    ) -> None:
        # Its supervisor serves the metrics and probes of all.
        self._config = WorkerConfig(commission.worker).http(None)
        self._commission = commission
        self._table = table
        self._orders = orders
        self._attach = attach
        self._received = received
        self._telling: set[asyncio.Task[None]] = set()
        self._retiring: asyncio.Task[None] | None = None
        self._stops = 0
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    async def main(self) -> int:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(NEXT_STAGE, self._on_next_stage)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, NEXT_STAGE])
        self._orders.setblocking(False)
        async with QueueManager(self._commission.settings) as manager:
            pool = WorkerPool(self._config, manager, table=self._table)
            pool.port = self._commission.port
            async with self._attach(pool) if self._attach is not None else contextlib.nullcontext():
                await pool.start()
                loop.add_reader(self._orders.fileno(), self._on_orders, pool)
                self._follow(pool, self._received)
                if os.getppid() != self._commission.parent:
                    self._stop.set()
                watch = asyncio.create_task(self._watch(pool))
                await self._stop.wait()
                watch.cancel()
                if self._retiring is not None:
                    self._retiring.cancel()
                await self._shutdown(pool)
                loop.remove_reader(self._orders.fileno())
        return 0

    def _on_next_stage(self) -> None:
        self._stops += 1
        (self._stop if self._stops == 1 else self._hurry).set()

    async def _shutdown(self, pool: WorkerPool) -> None:
        """Stop in stages; the second skips the waiting."""
        calm = asyncio.create_task(pool.shutdown())
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait([calm, hurry], return_when=asyncio.FIRST_COMPLETED)
        if not calm.done():
            pool.cut_short()
        await calm
        hurry.cancel()

    async def _retire(self, pool: WorkerPool) -> None:
        """End once the running jobs have; a stop meanwhile is the first stage."""
        await pool.retire()
        self._stop.set()

    def _on_orders(self, pool: WorkerPool) -> None:
        try:
            data = self._orders.recv(65536)
        except BlockingIOError:
            return
        if not data:
            # The supervisor is gone and nobody extends the leases: stop while they still hold.
            log.error("the supervisor has died; stopping")
            asyncio.get_running_loop().remove_reader(self._orders.fileno())
            self._stop.set()
            lease = self._config.settings.lease_seconds
            asyncio.get_running_loop().call_later(lease / 3, self._hurry.set)
            # By then no lease holds any more, and nobody is left who would kill a loop that is stuck.
            deadline = threading.Timer(lease, os._exit, (1,))
            deadline.daemon = True
            deadline.start()
            return
        self._follow(pool, self._received + data)

    def _follow(self, pool: WorkerPool, received: bytes) -> None:
        *lines, self._received = received.split(b"\n")
        for line in lines:
            order = msgspec.json.decode(line, type=Order)
            pool.on_beat(order.beaten, order.unextended)
            if order.quiet:
                pool.quiet()
            if order.retire and self._retiring is None:
                self._retiring = asyncio.create_task(self._retire(pool))
            for told in order.operations:
                pool.manager.store.observer(*told)
            if order.crashes:
                task = asyncio.create_task(announce(pool.manager, order.crashes, pool.tell_buried))
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)

    async def _watch(self, pool: WorkerPool) -> None:
        """Say so when most slots are lost to threads that never return: the supervisor then replaces this process."""
        while True:
            await asyncio.sleep(1.0)
            if pool.stuck >= max(1, pool.slots // 2):
                log.error("%d of %d slots are stuck; asking to be replaced", pool.stuck, pool.slots)
                pool.report_stuck()
                return
