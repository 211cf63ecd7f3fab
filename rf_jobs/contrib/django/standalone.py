"""Import it first in a ``jobs.py`` whose jobs have ``executor="process"`` and use models: such a job's process is a fresh
interpreter that imports this module alone, so Django is set up here unless somebody has, or does it just now."""

from __future__ import annotations

import django
from django.apps import apps

if not apps.apps_ready:
    django.setup()
