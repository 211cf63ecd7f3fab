"""``manage.py rf_jobs_worker``: runs jobs, with the options of ``rf-jobs worker``."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from rf_jobs.contrib.commands import run_command, worker_command
from rf_jobs.contrib.django.configuration import given
from rf_jobs.contrib.django.worker import check_environment

EQUIP = "rf_jobs.contrib.django.worker:equip"


class Command(BaseCommand):
    """Leaves the command line to click, as ``rf-jobs worker`` reads it."""

    help = "Run jobs, in supervised processes, until SIGTERM or Ctrl-C. Takes the options of rf-jobs worker."

    def run_from_argv(self, argv: list[str]) -> None:
        run_command(worker_command(_base, EQUIP), argv[2:], f"{argv[0]} {argv[1]}")

    def handle(self, *args: Any, **options: Any) -> None:
        self.run_from_argv(["manage.py", "rf_jobs_worker", *args])


def _base() -> dict[str, object]:
    check_environment()
    return given()
