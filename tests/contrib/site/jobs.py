"""Found by themselves."""

from __future__ import annotations

from django.db import connection

from rf_jobs import Job, JobContext
from rf_jobs.contrib.django import standalone as standalone  # noqa: PLC0414 (for InProcess)
from tests.contrib.site.models import Order


class CountOrders(Job, queue="site", max_attempts=1):
    def handle(self, ctx: JobContext) -> int:
        return Order.objects.count()


class CountOrdersAsync(Job, queue="site", max_attempts=1):
    async def handle(self, ctx: JobContext) -> int:
        return await Order.objects.acount()


class Backend(Job, queue="site", max_attempts=1):
    """The process id of the database's end of the connection."""

    def handle(self, ctx: JobContext) -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            pid: int = cursor.fetchone()[0]
            return pid


class InProcess(Job, queue="site", max_attempts=1, executor="process"):
    def handle(self, ctx: JobContext) -> int:
        return Order.objects.count()
