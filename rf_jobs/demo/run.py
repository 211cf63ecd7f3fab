"""The demo from start to end: servers, workers, a kill in the middle, the summary."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from uuid import UUID

from rf_jobs import JobRecord, QueueManager
from rf_jobs.demo import DemoOptions, checks, screen
from rf_jobs.demo.acts import Acts
from rf_jobs.demo.checks import Verdicts
from rf_jobs.demo.home import PLACE, Home, home
from rf_jobs.demo.load import Dispatched, dispatch_showcase, keep_loading
from rf_jobs.demo.patience import Patience
from rf_jobs.demo.processes import Programs
from rf_jobs.demo.servers import MailServer, WebhookServer, free_port
from rf_jobs.demo.shop import QUEUES, WAREHOUSE
from rf_jobs.demo.summary import Figures, figures, print_summary
from rf_jobs.telemetry import telemetry

DRAIN_SECONDS = 60.0
FAILURE_RATE = 0.3
INTERRUPTED = 130


def run(options: DemoOptions) -> int:
    """Run it; the exit code."""
    with ExitStack() as stack:
        place = stack.enter_context(home())
        mails, webhook = MailServer(), WebhookServer(FAILURE_RATE)
        shop = {"SMTP": mails.start(), "WEBHOOK": webhook.start(), "FOLDER": str(place.shop)}
        stack.callback(mails.stop)
        stack.callback(webhook.stop)
        programs = Programs(place.logs, place.config, shop)
        stack.callback(programs.stop)
        return asyncio.run(Demo(options, place, mails, webhook, programs).main())


class Demo:
    """One run. The first Ctrl-C, SIGTERM or SIGHUP ends the load, and the summary follows; the second ends it at once."""

    def __init__(
        self, options: DemoOptions, place: Home, mails: MailServer, webhook: WebhookServer, programs: Programs
    ) -> None:
        self._options = options
        self._place = place
        self._mails = mails
        self._webhook = webhook
        self._programs = programs
        self._screen = screen.choose(options.json)
        self._done = Dispatched()
        self._say = Verdicts()
        self._patience = Patience(self._say)
        self._exporter = ""

    async def main(self) -> int:
        """Everything, in order."""
        me = asyncio.current_task()
        assert me is not None  # noqa: S101 (we are in it)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, me)
        try:
            return self._finish(await self._run())
        except asyncio.CancelledError:
            print("aborted", file=sys.stderr)
            return INTERRUPTED

    def _on_signal(self, me: asyncio.Task[object]) -> None:
        if self._patience.stopped.is_set():
            self._programs.kill_all()
            me.cancel()
            return
        self._patience.stopped.set()
        self._screen.say("ending; again, and it ends without a summary")

    async def _run(self) -> Figures:
        settings = self._place.settings
        async with QueueManager(settings) as manager, telemetry(manager, settings.telemetry):
            await _empty(manager)
            watch = asyncio.create_task(self._watch(manager))
            try:
                began = time.monotonic()
                await self._play(manager)
                return await self._judge(manager, time.monotonic() - began)
            finally:
                watch.cancel()
                self._screen.close()

    async def _play(self, manager: QueueManager) -> None:
        first = self._start_worker("worker-1", WAREHOUSE, *QUEUES)
        self._start_worker("worker-2", *QUEUES)
        port = free_port()
        self._exporter = f"http://127.0.0.1:{port}/metrics"
        self._programs.start("exporter", "exporter", "--port", str(port))
        self._screen.say(f"server {self._place.url}; metrics at {self._exporter}")
        await dispatch_showcase(manager, self._done)
        self._screen.say(f"dispatched {len(self._done.ids())} jobs of the shop; the steady load begins")
        load_ends = asyncio.Event()
        loading = asyncio.create_task(keep_loading(manager, self._done, load_ends))
        try:
            seconds = self._options.seconds
            ends = time.monotonic() + seconds if seconds is not None else None
            await self._act(manager, first)
            if ends is None:
                await self._patience.stopped.wait()
            else:
                await self._patience.pause(ends - time.monotonic())
        finally:
            load_ends.set()
            await loading
        self._screen.say("the load has ended; draining")
        await self._patience.until(lambda: _drained(manager), DRAIN_SECONDS, "all queues are drained", to_the_end=True)

    async def _act(self, manager: QueueManager, first: subprocess.Popen[bytes]) -> None:
        acts = Acts(manager, self._programs, self._done, self._say, self._patience, self._screen, self._place.shop)
        if not (await acts.worker_is_up(first) and await acts.refund_dies()):
            return
        await self._patience.pause(min(3.0, (self._options.seconds or 9.0) / 3))
        held = await acts.kill(first)
        self._start_worker("worker-3", WAREHOUSE, *QUEUES)
        if held:
            await acts.see_taken_back(held)
        await acts.replay()

    async def _judge(self, manager: QueueManager, took: float) -> Figures:
        records = await _records(manager, self._done.ids())
        say = self._say
        checks.check_mails(say, self._done, self._mails, records)
        checks.check_pictures(say, self._done, self._place.shop)
        checks.check_webhooks(say, self._done, self._webhook, records)
        checks.check_report(say, records.get(self._done.report) if self._done.report else None)
        checks.check_nothing_lost(say, records, self._done.ids())
        queues = await checks.check_conservation(say, manager)
        urls = await checks.check_metrics(say, manager, self._exporter)
        return figures(queues, list(records.values()), took, urls)

    def _finish(self, found: Figures) -> int:
        if self._options.json:
            json.dump({"ok": self._say.all_hold, "checks": self._say.rows, **found}, sys.stdout, indent=2)
            print()
        else:
            print_summary(found, self._say)
        for name, row in self._say.rows.items():
            if not row["ok"]:
                print(f"not kept: {name}: {row['seen']} (logs are in {PLACE / 'logs'})", file=sys.stderr)
        return 0 if self._say.all_hold else 1

    # --- small parts ---------------------------------------------------------------------------------------------

    def _start_worker(self, name: str, *queues: str) -> subprocess.Popen[bytes]:
        return self._programs.start(name, "worker", "rf_jobs.demo.shop", "--queues", ",".join(queues))

    async def _watch(self, manager: QueueManager) -> None:
        while True:
            self._screen.show(await manager.queues(), len(checks.live(await manager.workers())))
            await asyncio.sleep(0.5)


async def _empty(manager: QueueManager) -> None:
    """Remove what earlier runs left on the demo's own server."""
    await manager.store.client.flushall()
    await manager.store.greet()


async def _drained(manager: QueueManager) -> bool:
    return not any(
        q.counts[state] for q in await manager.queues() for state in ("ready", "scheduled", "running", "parked")
    )


async def _records(manager: QueueManager, ids: list[UUID]) -> dict[UUID, JobRecord]:
    found = await manager.inspector.records([str(job) for job in ids])
    return {record.id: record for record in found}
