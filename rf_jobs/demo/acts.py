"""What happens while the load runs: a dead letter, a worker killed with SIGKILL, the dead letter replayed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from uuid import UUID

from rf_jobs import JobRecord, QueueManager
from rf_jobs.core.records import WorkerInfo
from rf_jobs.demo.checks import Verdicts, live
from rf_jobs.demo.load import Dispatched
from rf_jobs.demo.patience import Patience
from rf_jobs.demo.processes import Programs, belongs_to
from rf_jobs.demo.screen import Screen
from rf_jobs.demo.shop import Stocktaking
from rf_jobs.words.errors import RfJobsError

WAIT_SECONDS = 30.0
STOCKTAKINGS = 6


class Acts:
    """One after the other. Each leaves its verdict, also where it could not be played."""

    def __init__(
        self, manager: QueueManager, programs: Programs, done: Dispatched, say: Verdicts, patience: Patience, screen: Screen,
        shop: Path,
    ) -> None:  # fmt: skip
        self._manager = manager
        self._programs = programs
        self._done = done
        self._say = say
        self._patience = patience
        self._screen = screen
        self._shop = shop

    async def worker_is_up(self, worker: subprocess.Popen[bytes]) -> bool:
        """Wait until a worker that was started says that it lives."""

        async def lives() -> bool:
            return bool(await self._processes_of(worker))

        return await self._patience.until(lives, WAIT_SECONDS, "the first worker is up")

    async def refund_dies(self) -> bool:
        """The refund fails three times and is a dead letter."""

        async def is_dead() -> bool:
            return self._done.refund is not None and (await self._manager.job(self._done.refund)).state == "dead"

        return await self._patience.until(is_dead, WAIT_SECONDS, "the refund is a dead letter")

    async def kill(self, victim: subprocess.Popen[bytes]) -> list[UUID]:
        """Give the worker jobs that take longer than this does, see in the store that it holds them, kill it. Answers
        with those it held, none where it was not killed."""
        ids = await self._manager.dispatch_many([Stocktaking(shelf=number) for number in range(STOCKTAKINGS)])
        self._done.load += ids
        held: list[UUID] = []

        async def holds_some() -> bool:
            workers = {worker.id for worker in await self._processes_of(victim)}
            held[:] = [r.id for r in await self._records(ids) if r.state == "running" and r.worker in workers]
            return bool(held)

        if not await self._patience.until(holds_some, WAIT_SECONDS, "the worker holds jobs"):
            self._say.say("worker killed", False, "not killed: it held none of the jobs that were meant for it")
            return []
        self._programs.kill(victim)
        self._screen.say(
            f"killed a worker with SIGKILL; by the store it held {len(held)} jobs of {Stocktaking.SECONDS:g} s"
        )
        return held

    async def see_taken_back(self, held: list[UUID]) -> None:
        """The jobs that the dead worker held are given to others when its leases have run out."""
        taken: list[JobRecord] = []

        async def all_taken() -> bool:
            taken[:] = [record for record in await self._records(held) if record.crashes]
            return len(taken) == len(held)

        all_back = await self._patience.until(all_taken, WAIT_SECONDS, "the dead worker's jobs were taken back")
        seen = f"it held {len(held)} jobs at its death; {len(taken)} of them were taken back"
        self._say.say("worker killed", all_back, seen)
        self._screen.say(seen)

    async def replay(self) -> None:
        """Mend the refund's cause, replay it, see it complete."""
        refund = self._done.refund
        if refund is None:
            return
        try:
            record = await self._manager.job(refund)
            why = record.errors[-1].message if record.errors else "no error was kept"
            self._screen.say(f"a dead letter after {len(record.errors)} attempts: {why}")
            (self._shop / "bank-is-open").touch(mode=0o600)
            replayed = await self._manager.retry_failed(refund)
            result = await self._manager.wait(refund, timeout=WAIT_SECONDS)
        except (RfJobsError, TimeoutError) as error:
            self._say.say("dead letter", False, f"its replay failed: {type(error).__name__}: {error}")
            return
        self._screen.say(f"mended the cause and replayed it: {result}")
        whole = len(record.errors) == 3 and all(error.traceback and error.worker for error in record.errors)
        seen = f"{len(record.errors)} errors with tracebacks, then: {result}"
        self._say.say("dead letter", whole and replayed, seen)

    async def _processes_of(self, worker: subprocess.Popen[bytes]) -> list[WorkerInfo]:
        return [each for each in live(await self._manager.workers()) if belongs_to(each.pid, worker)]

    async def _records(self, ids: list[UUID]) -> list[JobRecord]:
        return await self._manager.inspector.records([str(job) for job in ids])
