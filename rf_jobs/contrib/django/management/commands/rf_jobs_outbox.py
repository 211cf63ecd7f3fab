"""``manage.py rf_jobs_outbox``: moves jobs from the outbox to the server."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from rf_jobs.contrib.commands import outbox_command, run_command
from rf_jobs.contrib.django import outbox
from rf_jobs.contrib.django.configuration import given


class Command(BaseCommand):
    """Leaves the command line to click, as ``rf-jobs outbox`` reads it."""

    help = "Move jobs from the outbox to the server until SIGTERM or Ctrl-C. Several may run."

    def run_from_argv(self, argv: list[str]) -> None:
        run_command(outbox_command(given, outbox.source), argv[2:], f"{argv[0]} {argv[1]}")

    def handle(self, *args: Any, **options: Any) -> None:
        self.run_from_argv(["manage.py", "rf_jobs_outbox", *args])
