"""The app: configures ``Queue`` from Django's settings and finds the job classes."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules

from rf_jobs.client.queue import configure
from rf_jobs.contrib.django.configuration import effective
from rf_jobs.contrib.django.connections import mind_connections
from rf_jobs.model.jobclass import registry


class RfJobsConfig(AppConfig):
    """``rf_jobs.contrib.django`` in ``INSTALLED_APPS``."""

    name = "rf_jobs.contrib.django"
    label = "rf_jobs"
    verbose_name = "Background jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Raises ``ConfigError`` for settings that are wrong."""
        configure(effective())
        autodiscover_modules("jobs")
        for name in registry.names():
            mind_connections(registry.get(name).type)
