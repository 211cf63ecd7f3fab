"""The demo from start to end: servers, workers, a kill in the middle, the summary."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen
from uuid import UUID

from rf_jobs import JobRecord, QueueManager
from rf_jobs.demo import DemoOptions, checks, screen
from rf_jobs.demo.checks import Verdicts
from rf_jobs.demo.load import Dispatched, dispatch_showcase, keep_loading
from rf_jobs.demo.processes import Programs
from rf_jobs.demo.servers import MailServer, WebhookServer, free_port
from rf_jobs.demo.shop import QUEUES
from rf_jobs.demo.summary import Figures, figures, print_summary
from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.words.config import load_settings

LEASE_SECONDS = 3
DRAIN_SECONDS = 60.0
FAILURE_RATE = 0.3
KEPT = 1_000_000


def run(options: DemoOptions) -> int:
    """Run it; the exit code."""
    with ExitStack() as stack:
        home = Path.cwd() / ".rf-jobs"
        home.mkdir(mode=0o700, exist_ok=True)
        server = EmbeddedServer.start(home / "server")
        stack.callback(server.stop)
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="rf-jobs-demo-")))
        mails, webhook = MailServer(), WebhookServer(FAILURE_RATE)
        environment = {
            "RF_JOBS_TEST_SHOP_SMTP": mails.start(),
            "RF_JOBS_TEST_SHOP_WEBHOOK": webhook.start(),
            "RF_JOBS_TEST_SHOP_FOLDER": str(folder),
            "RF_JOBS_COMPLETED_KEEP": str(KEPT),
        }
        stack.callback(mails.stop)
        stack.callback(webhook.stop)
        logs = home / "logs"
        logs.mkdir(exist_ok=True)
        programs = Programs(logs, environment)
        stack.callback(programs.stop)
        demo = Demo(options, server.url, folder, mails, webhook, programs)
        return asyncio.run(demo.main())


class Demo:
    """One run."""

    def __init__(
        self,
        options: DemoOptions,
        url: str,
        folder: Path,
        mails: MailServer,
        webhook: WebhookServer,
        programs: Programs,
    ) -> None:
        self._options = options
        self._url = url
        self._folder = folder
        self._mails = mails
        self._webhook = webhook
        self._programs = programs
        self._screen = screen.choose(options.json)
        self._stop = asyncio.Event()
        self._done = Dispatched()
        self._say = Verdicts()
        self._exporter = ""
        overrides = {"jobs.redis_url": url, "jobs.namespace": options.namespace, "jobs.completed_keep": KEPT}
        self._settings = load_settings(overrides=overrides).settings

    async def main(self) -> int:
        """Everything, in order."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        async with QueueManager(self._settings) as manager:
            await self._clean(manager)
            watch = asyncio.create_task(self._watch(manager))
            try:
                began = time.monotonic()
                await self._play(manager)
                found = await self._judge(manager, time.monotonic() - began)
            finally:
                watch.cancel()
                self._screen.close()
        return self._finish(found)

    async def _clean(self, manager: QueueManager) -> None:
        """An earlier run must not count: drop the demo's namespace, and nothing else."""
        await manager.store.connect()
        await manager.store.drop_namespace()
        await manager.store.greet()

    async def _play(self, manager: QueueManager) -> None:
        first = self._start_worker("worker-1")
        self._start_worker("worker-2")
        port = free_port()
        self._exporter = f"http://127.0.0.1:{port}/metrics"
        self._programs.start("exporter", "exporter", "--port", str(port), *self._where())
        self._screen.say(f"server {self._url}; metrics at {self._exporter}")
        await dispatch_showcase(manager, self._done)
        self._screen.say(f"dispatched {len(self._done.ids())} jobs of the shop; the steady load begins")
        loading = asyncio.create_task(keep_loading(manager, self._done, self._stop))
        try:
            seconds = self._options.seconds
            ends = time.monotonic() + seconds if seconds is not None else None
            await self._until(lambda: _holds_jobs(manager, first), 30, "the first worker holds jobs")
            await self._pause(3.0 if seconds is None else min(3.0, seconds / 3))
            await self._kill(manager, first)
            await self._replay(manager)
            if ends is None:
                await self._stop.wait()
            else:
                await self._pause(ends - time.monotonic())
        finally:
            self._stop.set()
            await loading
        self._screen.say("the load has ended; draining")
        await self._until(lambda: _drained(manager), DRAIN_SECONDS, "all queues are drained")

    async def _kill(self, manager: QueueManager, victim: subprocess.Popen[bytes]) -> None:
        held = await _held_by(manager, victim)
        self._programs.kill(victim)
        self._screen.say(f"killed a worker with SIGKILL while it held {held} jobs; starting another")
        self._start_worker("worker-3")
        before = sum(queue.ledger.get("reclaimed", 0) for queue in await manager.queues())

        async def reclaimed() -> bool:
            return sum(queue.ledger.get("reclaimed", 0) for queue in await manager.queues()) > before

        await self._until(reclaimed, LEASE_SECONDS * 5, "the dead worker's jobs were taken back")
        taken = sum(queue.ledger.get("reclaimed", 0) for queue in await manager.queues()) - before
        self._say.say("worker killed", held > 0 and taken > 0, f"held {held} jobs at its death; they were taken back")
        self._screen.say("its jobs were taken back by the other worker")

    async def _replay(self, manager: QueueManager) -> None:
        """The refund has failed for good; mend the cause, replay it, see it complete."""
        refund = self._done.refund
        if refund is None:
            return

        async def is_dead() -> bool:
            return (await manager.job(refund)).state == "dead"

        await self._until(is_dead, 30, "the refund is a dead letter")
        record = await manager.job(refund)
        self._screen.say(f"a dead letter after {len(record.errors)} attempts: {record.errors[-1].message}")
        (self._folder / "bank-is-open").touch()
        replayed = await manager.retry_failed(refund)
        result = await manager.wait(refund, timeout=30)
        self._screen.say(f"mended the cause and replayed it: {result}")
        history = len(record.errors) == 3 and all(error.traceback and error.worker for error in record.errors)
        self._say.say(
            "dead letter", history and replayed, f"{len(record.errors)} errors with tracebacks, then: {result}"
        )

    async def _judge(self, manager: QueueManager, took: float) -> Figures:
        records = await _records(manager, self._done.ids())
        say = self._say
        checks.check_mails(say, self._done, self._mails, records)
        checks.check_pictures(say, self._done, self._folder)
        checks.check_webhooks(say, self._done, self._webhook, records)
        if self._done.report is not None:
            checks.check_report(say, records[self._done.report])
        checks.check_nothing_lost(say, records, self._done.ids())
        queues = await checks.check_conservation(say, manager)
        workers = [
            f"http://127.0.0.1:{w.facts['port']}/metrics"
            for w in await manager.workers()
            if w.facts.get("port", "0") != "0"
        ]
        served = await asyncio.to_thread(_serves, self._exporter)
        say.say("metrics", served and bool(workers), f"exporter and {len(workers)} workers serve /metrics")
        return figures(queues, list(records.values()), took, [self._exporter, *workers])

    def _finish(self, found: Figures) -> int:
        if self._options.json:
            json.dump({"ok": self._say.all_hold, "checks": self._say.rows, **found}, sys.stdout, indent=2)
            print()
        else:
            print_summary(found, self._say)
        for name, row in self._say.rows.items():
            if not row["ok"]:
                print(f"not kept: {name}: {row['seen']} (logs are in .rf-jobs/logs)", file=sys.stderr)
        return 0 if self._say.all_hold else 1

    # --- small parts ---------------------------------------------------------------------------------------------

    def _where(self) -> list[str]:
        return ["--redis-url", self._url, "--namespace", self._options.namespace]

    def _start_worker(self, name: str) -> subprocess.Popen[bytes]:
        return self._programs.start(
            name, "worker", "rf_jobs.demo.shop", "--queues", ",".join(QUEUES), "--max-concurrent-jobs", "20",
            "--lease-seconds", str(LEASE_SECONDS), "--http-port", "0", *self._where(),
        )  # fmt: skip

    async def _watch(self, manager: QueueManager) -> None:
        while True:
            self._screen.show(await manager.queues(), len(await manager.workers()))
            await asyncio.sleep(0.5)

    async def _pause(self, seconds: float) -> None:
        """So long, or until Ctrl-C."""
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._stop.wait()
            except TimeoutError:
                return

    async def _until(self, holds: Callable[[], Awaitable[bool]], patience: float, what: str) -> None:
        give_up = time.monotonic() + patience
        while not await holds():
            if time.monotonic() > give_up:
                self._say.say(what, False, f"not within {patience:.0f} s")
                return
            await asyncio.sleep(0.1)


async def _held_by(manager: QueueManager, process: subprocess.Popen[bytes]) -> int:
    """How many jobs the children of a worker command hold."""
    children = _children(process.pid)
    return sum(worker.busy for worker in await manager.workers() if worker.pid in children)


async def _holds_jobs(manager: QueueManager, process: subprocess.Popen[bytes]) -> bool:
    return await _held_by(manager, process) > 0


def _children(pid: int) -> set[int]:
    """Processes of the group that this one leads."""
    listed = subprocess.run(["ps", "-o", "pid=", "-g", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    return {int(each) for each in listed.stdout.split()}


async def _drained(manager: QueueManager) -> bool:
    return not any(
        q.counts[state] for q in await manager.queues() for state in ("ready", "scheduled", "running", "parked")
    )


async def _records(manager: QueueManager, ids: list[UUID]) -> dict[UUID, JobRecord]:
    found = await manager.inspector.records([str(job) for job in ids])
    return {record.id: record for record in found}


def _serves(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:  # noqa: S310 (127.0.0.1)
            return b"queue_depth" in answer.read()
    except OSError:
        return False
