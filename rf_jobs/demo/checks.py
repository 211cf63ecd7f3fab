"""What the demo promises, looked at one by one."""

from __future__ import annotations

import asyncio
import csv
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.request import ProxyHandler, build_opener
from uuid import UUID

from PIL import Image

from rf_jobs import JobRecord, QueueManager
from rf_jobs.core.records import QueueInfo, WorkerInfo
from rf_jobs.demo.load import Dispatched
from rf_jobs.demo.servers import MailServer, WebhookServer
from rf_jobs.demo.shop import DATA

METRICS_SECONDS = 15.0


class Verdicts:
    """Collects what holds and what does not."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, str | bool]] = {}

    def say(self, name: str, holds: bool, seen: str) -> None:
        """Note one promise."""
        self.rows[name] = {"ok": holds, "seen": seen}

    @property
    def all_hold(self) -> bool:
        """Whether every promise was kept."""
        return all(row["ok"] for row in self.rows.values())


def live(workers: Sequence[WorkerInfo]) -> list[WorkerInfo]:
    """Those that were heard of lately."""
    return [worker for worker in workers if worker.state != "stale"]


def _once(records: dict[UUID, JobRecord], job: UUID) -> bool:
    """Whether the job had no cause to do its work twice: neither a dead worker nor an attempt that failed at its end."""
    record = records.get(job)
    return record is not None and not record.crashes and record.attempt == 1


def check_mails(say: Verdicts, done: Dispatched, server: MailServer, records: dict[UUID, JobRecord]) -> None:
    """Each mail arrived as it was dispatched; twice only where a worker died over it or it was tried again."""
    got = Counter(server.mails)
    wrong = [each for each in got if done.mails.get(each[0]) != each[1]]
    missing = [job for job, to in done.mails.items() if not got[job, to]]
    twice = [job for (job, _), times in got.items() if times > 1 and _once(records, UUID(job))]
    say.say("mails", not (wrong or missing or twice), f"{len(got)} of {len(done.mails)} read back from the SMTP server")


def check_pictures(say: Verdicts, done: Dispatched, folder: Path) -> None:
    """Each thumbnail is there, in the right size."""
    right = 0
    for picture, width in done.pictures.values():
        path = folder / f"{Path(picture).stem}-{width}.jpg"
        if path.exists():
            with Image.open(path) as thumbnail:
                right += max(thumbnail.size) == width
    say.say("thumbnails", right == len(done.pictures), f"{right} of {len(done.pictures)} files of the right size")


def check_webhooks(say: Verdicts, done: Dispatched, server: WebhookServer, records: dict[UUID, JobRecord]) -> None:
    """Each order was taken; twice only where a worker died over it or it was tried again."""
    missing = [order for order in done.webhooks.values() if not server.taken[order]]
    twice = [o for job, o in done.webhooks.items() if server.taken[o] > 1 and _once(records, job)]
    seen = f"{len(server.taken)} of {len(done.webhooks)} orders taken, {server.refused} refused and tried again"
    say.say("webhooks", not missing and not twice and server.refused > 0, seen)


def check_report(say: Verdicts, record: JobRecord | None) -> None:
    """The report's total is right by another way of summing."""
    if record is None or not record.has_result:
        say.say("report", False, "there is none")
        return
    with (DATA / "orders.csv").open(newline="") as file:
        total = sum(int(row["quantity"]) * int(row["unit_price_cents"]) for row in csv.DictReader(file))
    found = sum(record.result.values())
    progress = record.progress.percentage if record.progress else 0
    say.say("report", found == total and progress == 100, f"{found} cents in all, {progress:.0f} % reported")


def check_nothing_lost(say: Verdicts, records: dict[UUID, JobRecord], ids: list[UUID]) -> None:
    """Every job that was dispatched completed."""
    states = Counter(records[job].state if job in records else "lost" for job in ids)
    say.say("nothing lost", states == {"completed": len(ids)}, ", ".join(f"{n} {state}" for state, n in states.items()))


async def check_conservation(say: Verdicts, manager: QueueManager) -> list[QueueInfo]:
    """The ledger agrees with the queues."""
    queues = await manager.queues()
    missed = sum(queue.imbalance for queue in queues)
    events = sum(queue.ledger.get("dispatched", 0) for queue in queues)
    say.say("conservation", missed == 0, f"{events} dispatched, imbalance {missed}")
    return queues


async def check_metrics(say: Verdicts, manager: QueueManager, exporter: str) -> list[str]:
    """The exporter and each live worker serve metrics, and the exporter has counted what the ledger has, once all
    processes have sent their last figures. Answers with the pages' URLs."""
    give_up = time.monotonic() + METRICS_SECONDS
    while True:
        workers = [f"http://127.0.0.1:{w.facts.get('port', '0')}/metrics" for w in live(await manager.workers())]
        pages = await asyncio.gather(*(asyncio.to_thread(_page, url) for url in [exporter, *workers]))
        serving = sum("jobs_processed_total" in page for page in pages[1:])
        counted = dispatched_by(pages[0])
        ledger = sum(queue.ledger.get("dispatched", 0) for queue in await manager.queues())
        holds = bool(workers) and serving == len(workers) and counted == ledger
        if holds or time.monotonic() > give_up:
            break
        await asyncio.sleep(0.2)
    seen = f"{serving} of {len(workers)} live workers serve /metrics; the exporter counts {counted} dispatched, the ledger {ledger}"
    say.say("metrics", holds, seen)
    return [exporter, *workers]


def dispatched_by(page: str) -> int:
    """How many dispatches a page of metrics counts."""
    values = re.findall(r"^jobs_dispatched_total\{[^}]*\} (\S+)", page, re.MULTILINE)
    return round(sum(map(float, values)))


def _page(url: str) -> str:
    """'' where nobody serves it."""
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""
