"""The shop's jobs. Where the mail and webhook servers are comes through the environment, as it would in production."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import smtplib
import urllib.request
from email.message import EmailMessage
from pathlib import Path
from typing import ClassVar

from PIL import Image

from rf_jobs import Exponential, Job, JobContext

DATA = Path(__file__).parent / "data"
QUEUES = ("payments", "emails", "pictures", "reports", "load")
WAREHOUSE = "warehouse"
"""The queue of the worker that is killed, and of the one that replaces it."""


def place(name: str) -> str:
    """Where something is, by the environment that the demo gave its workers."""
    return os.environ[f"RF_JOBS_TEST_SHOP_{name}"]


class WelcomeEmail(Job, queue="emails", max_attempts=5, backoff=Exponential(0.5), timeout=10):
    """Really sent over SMTP."""

    to: str
    name: str

    def handle(self, ctx: JobContext) -> None:
        message = EmailMessage()
        message["From"] = "shop@example.org"
        message["To"] = self.to
        message["Subject"] = f"Welcome, {self.name}"
        message["X-Job-Id"] = ctx.idempotency_key
        message.set_content(f"Dear {self.name},\n\nyour account is ready.\n")
        host, _, port = place("SMTP").partition(":")
        with smtplib.SMTP(host, int(port), timeout=5) as server:
            server.send_message(message)


class Thumbnail(Job, queue="pictures", timeout=30):
    """Really resized, in a thread."""

    picture: str
    width: int

    def handle(self, ctx: JobContext) -> list[int]:
        with Image.open(DATA / "pictures" / self.picture) as picture:
            picture.thumbnail((self.width, self.width))
            picture.convert("RGB").save(Path(place("FOLDER")) / f"{Path(self.picture).stem}-{self.width}.jpg")
            return list(picture.size)


class Webhook(Job, queue="payments", max_attempts=12, backoff=Exponential(0.2, cap=2), timeout=5):
    """POSTs to a server that fails now and then; tried again with backoff."""

    order: int

    def handle(self, ctx: JobContext) -> int:
        body = json.dumps({"order": self.order, "job": ctx.idempotency_key}).encode()
        request = urllib.request.Request(place("WEBHOOK"), body, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=3) as answer:  # noqa: S310 (the demo's own server)
            return int(answer.status)


class SalesReport(Job, queue="reports", timeout=30):
    """Sums a real CSV file by country, saying how far it is."""

    async def handle(self, ctx: JobContext) -> dict[str, int]:
        totals: dict[str, int] = {}
        with (DATA / "orders.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for number, row in enumerate(rows, 1):
            totals[row["country"]] = totals.get(row["country"], 0) + int(row["quantity"]) * int(row["unit_price_cents"])
            if number % 250 == 0:
                await ctx.progress(number, len(rows), row["country"])
        return totals


class Refund(Job, queue="payments", max_attempts=3, backoff=0.2):
    """Fails until somebody mends its cause; ends among the dead letters and is replayed."""

    order: int

    def handle(self, ctx: JobContext) -> str:
        if not (Path(place("FOLDER")) / "bank-is-open").exists():
            raise ConnectionError(f"the bank does not answer (attempt {ctx.attempt})")
        return f"order {self.order} refunded"


class Stock(Job, queue="load"):
    """The steady load: short, like most jobs."""

    article: int

    async def handle(self, ctx: JobContext) -> None:
        await asyncio.sleep(0.002)


class Packing(Job, queue="load", timeout=30):
    """Takes a while: some are always under way."""

    order: int

    async def handle(self, ctx: JobContext) -> None:
        await asyncio.sleep(1.0)


class Stocktaking(Job, queue=WAREHOUSE, timeout=60):
    """Takes so long that a worker which has it when it is looked at has it still when it is killed."""

    SECONDS: ClassVar[float] = 5.0
    shelf: int

    async def handle(self, ctx: JobContext) -> None:
        await asyncio.sleep(self.SECONDS)
