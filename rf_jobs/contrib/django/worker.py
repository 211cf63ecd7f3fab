"""What each process of ``manage.py rf_jobs_worker`` is equipped with: Django itself, and through it the job classes."""

from __future__ import annotations

import os

import django

from rf_jobs.cli import equipment
from rf_jobs.words.errors import ConfigError
from rf_jobs.worker.commission import Attach, Commission

SETTINGS_VARIABLE = "DJANGO_SETTINGS_MODULE"


def equip(commission: Commission) -> Attach:
    """Set Django up, and what ``rf-jobs worker`` has. Raises ``ConfigError``."""
    django.setup()
    return equipment.equip(commission)


def check_environment() -> None:
    """Raises ``ConfigError`` where the processes could not find Django's settings."""
    if not os.environ.get(SETTINGS_VARIABLE):
        raise ConfigError(
            f"{SETTINGS_VARIABLE} is not set, so the worker's processes would not find the settings; name their module in it,"
            " as the manage.py of a project does"
        )
