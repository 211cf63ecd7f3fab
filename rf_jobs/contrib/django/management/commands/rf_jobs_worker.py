"""``manage.py rf_jobs_worker``: runs jobs, with the options of ``rf-jobs worker``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connections

from rf_jobs.contrib.django.configuration import given
from rf_jobs.contrib.hosting import run_command, worker_command
from rf_jobs.worker.pool import WorkerPool


@asynccontextmanager
async def _plain(pool: WorkerPool) -> AsyncGenerator[None, None]:
    yield


class Command(BaseCommand):
    help = "Run jobs, in supervised processes, until SIGTERM or Ctrl-C. Takes the options of rf-jobs worker."

    def run_from_argv(self, argv: list[str]) -> None:
        connections.close_all()  # what the processes that are forked must not share
        run_command(worker_command(given, _plain), argv[2:], f"{argv[0]} {argv[1]}")

    def handle(self, *args: Any, **options: Any) -> None:
        self.run_from_argv(["manage.py", "rf_jobs_worker", *args])
