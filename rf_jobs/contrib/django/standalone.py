"""Import it first in a ``jobs.py`` whose jobs have ``executor="process"`` and use models: such a job's process is a fresh
interpreter that imports this module alone, so Django is set up here unless somebody has, or does it just now."""

from __future__ import annotations

import os
import sys

import django
from django.apps import apps

JOB_PROCESS = "rf_jobs.worker.job_process_main"

if getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", "") == JOB_PROCESS:
    # It runs one job at a time, a plain handler too inside an event loop on which nothing else waits: no query can be in
    # another's way, which is what Django forbids them there for.
    os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
if not apps.apps_ready:
    django.setup()
