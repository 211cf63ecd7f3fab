"""What the demo dispatches, and what it remembers of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from uuid import UUID

from rf_jobs import Priority, QueueManager
from rf_jobs.demo.shop import DATA, Packing, Refund, SalesReport, Stock, Thumbnail, Webhook, WelcomeEmail

WIDTHS = (160, 480)
ORDERS = 30
MAILS = 25
BATCH = 40
PACKINGS = 3
BATCH_PAUSE_SECONDS = 0.2


@dataclass
class Dispatched:
    """Ids of all that was dispatched, by what it is."""

    mails: dict[str, str] = field(default_factory=dict)
    """job id to recipient"""
    pictures: dict[UUID, tuple[str, int]] = field(default_factory=dict)
    webhooks: dict[UUID, int] = field(default_factory=dict)
    report: UUID | None = None
    refund: UUID | None = None
    load: list[UUID] = field(default_factory=list)

    def ids(self) -> list[UUID]:
        """All of them."""
        single = [job for job in (self.report, self.refund) if job is not None]
        return [*(UUID(each) for each in self.mails), *self.pictures, *self.webhooks, *single, *self.load]


async def dispatch_showcase(manager: QueueManager, done: Dispatched) -> None:
    """One of everything: at once, delayed, urgent, in bulk."""
    for number in range(MAILS):
        mail = WelcomeEmail(to=f"customer{number}@example.org", name=f"Customer {number}")
        pending = manager.dispatch(mail)
        if number % 5 == 0:
            pending = pending.delay(0.5 + number / 10)
        if number == MAILS - 1:
            pending = pending.priority(Priority.CRITICAL)
        done.mails[str(await pending)] = mail.to
    for picture in sorted(path.name for path in (DATA / "pictures").iterdir()):
        for width in WIDTHS:
            done.pictures[await manager.dispatch(Thumbnail(picture=picture, width=width)).tags("showcase")] = (
                picture,
                width,
            )
    orders = list(range(1, ORDERS + 1))
    ids = await manager.dispatch_many([Webhook(order=order) for order in orders])
    done.webhooks.update(zip(ids, orders, strict=True))
    done.report = await manager.dispatch(SalesReport())
    done.refund = await manager.dispatch(Refund(order=7))


async def keep_loading(manager: QueueManager, done: Dispatched, stop: asyncio.Event) -> None:
    """A steady load until told to stop."""
    number = 0
    while not stop.is_set():
        jobs = [Stock(article=number + at) for at in range(BATCH)]
        done.load += await manager.dispatch_many([*jobs, *(Packing(order=number + at) for at in range(PACKINGS))])
        number += BATCH
        try:
            async with asyncio.timeout(BATCH_PAUSE_SECONDS):
                await stop.wait()
        except TimeoutError:
            continue
