"""Read from the environment, so that a test may say where its servers are."""

from __future__ import annotations

import json
import os
from typing import Any

from sqlalchemy.engine import make_url

_url = make_url(os.environ.get("TEST_DATABASE_URL", "sqlite:///:memory:"))
_engines = {"sqlite": "django.db.backends.sqlite3", "postgresql": "django.db.backends.postgresql"}

INSTALLED_APPS = ["rf_jobs.contrib.django", "tests.contrib.site"]
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": _engines[_url.get_backend_name()],
        "NAME": _url.database,
        "USER": _url.username,
        "HOST": _url.host,
        "PORT": _url.port,
        "CONN_MAX_AGE": None,  # kept for ever, unless a connection breaks
    }
}
ROOT_URLCONF = "tests.contrib.site.urls"
ALLOWED_HOSTS = ["127.0.0.1"]
SECRET_KEY = "of the tests"
USE_TZ = True
RF_JOBS: Any = json.loads(os.environ.get("TEST_RF_JOBS", "{}"))
