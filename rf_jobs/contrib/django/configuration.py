"""What Django's settings say: ``RF_JOBS``, laid out as the table ``[jobs]`` of the configuration file."""

from __future__ import annotations

from django.conf import settings as django_settings

from rf_jobs.contrib.hosting import overrides, settings_of
from rf_jobs.words.config_settings import Settings

NAME = "RF_JOBS"


def given() -> dict[str, object]:
    """The settings in ``RF_JOBS``, by path. Raises ``ConfigError``."""
    return overrides(getattr(django_settings, NAME, {}), NAME)


def effective() -> Settings:
    """They, over variables, file and defaults. Raises ``ConfigError``."""
    return settings_of(getattr(django_settings, NAME, {}), NAME)
