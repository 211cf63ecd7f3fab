"""``flask rf-jobs worker``: runs jobs, each inside an application context."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import click
from flask import current_app
from flask.cli import ScriptInfo

from rf_jobs.cli import equipment
from rf_jobs.contrib.commands import worker_command
from rf_jobs.contrib.flask import CONFIG, WHERE, AppContext
from rf_jobs.contrib.hosting import overrides
from rf_jobs.worker.commission import Attach, Commission
from rf_jobs.worker.pool import WorkerPool

APP_VARIABLE = "FLASK_APP"


def equip(commission: Commission) -> Attach:
    """What each process is equipped with: the application, and what ``rf-jobs worker`` has. Raises ``ConfigError``."""
    app = ScriptInfo(app_import_path=os.environ.get(APP_VARIABLE)).load_app()
    inner = equipment.equip(commission)

    @asynccontextmanager
    async def attach(pool: WorkerPool) -> AsyncGenerator[None, None]:
        pool.manager.middleware.add(AppContext(app))
        async with inner(pool):
            yield

    return attach


def _base() -> dict[str, object]:
    """What the configuration says; and the worker's processes get to know which application this is."""
    info = click.get_current_context().find_object(ScriptInfo)
    if info is not None and info.app_import_path:
        os.environ[APP_VARIABLE] = info.app_import_path
    app = info.load_app() if info is not None else current_app
    return overrides(app.config.get(CONFIG, {}), WHERE)


command = worker_command(_base, f"{__name__}:{equip.__name__}")
"""The command."""
