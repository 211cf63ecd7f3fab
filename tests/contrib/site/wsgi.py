"""For gunicorn. It dispatches as soon as it is loaded, before the server forks: its children must not share what that
started."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.contrib.site.settings")
application = get_wsgi_application()

from rf_jobs.contrib.django import dispatch  # noqa: E402 (after Django is set up)
from tests.contrib.site.jobs import CountOrders  # noqa: E402

dispatch(CountOrders()).sync()
