"""What the demo promises, looked at one by one."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from uuid import UUID

from PIL import Image

from rf_jobs import JobRecord, QueueManager
from rf_jobs.core.records import QueueInfo
from rf_jobs.demo.load import Dispatched
from rf_jobs.demo.servers import MailServer, WebhookServer
from rf_jobs.demo.shop import DATA


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


def check_mails(say: Verdicts, done: Dispatched, server: MailServer, records: dict[UUID, JobRecord]) -> None:
    """Each mail arrived as it was dispatched; twice only where a worker died over it."""
    got = Counter(server.mails)
    wrong = [each for each in got if done.mails.get(each[0]) != each[1]]
    missing = [job for job, to in done.mails.items() if not got[job, to]]
    twice = [job for (job, _), times in got.items() if times > 1 and not records[UUID(job)].crashes]
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
    """Each order was taken; twice only where a worker died over it."""
    missing = [order for order in done.webhooks.values() if not server.taken[order]]
    twice = [o for job, o in done.webhooks.items() if server.taken[o] > 1 and not records[job].crashes]
    seen = f"{len(server.taken)} of {len(done.webhooks)} orders taken, {server.refused} refused and tried again"
    say.say("webhooks", not missing and not twice and server.refused > 0, seen)


def check_report(say: Verdicts, record: JobRecord) -> None:
    """The report's total is right by another way of summing."""
    with (DATA / "orders.csv").open(newline="") as file:
        total = sum(int(row["quantity"]) * int(row["unit_price_cents"]) for row in csv.DictReader(file))
    found = sum(record.result.values()) if record.has_result else None
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
