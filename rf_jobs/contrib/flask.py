"""Flask::

    jobs = RfJobs()

    def create_app() -> Flask:
        app = Flask(__name__)
        app.config["RF_JOBS"] = {"redis_url": "redis://127.0.0.1:6379/0"}
        jobs.init_app(app)
        return app

    @blueprint.post("/users")
    def sign_up() -> dict[str, str]:
        return {"job": str(jobs.dispatch(SendEmail(to="ada@example.org")).sync())}

``flask rf-jobs worker`` runs the jobs, each inside an application context.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, overload
from uuid import UUID

import click
from flask import Flask, current_app
from flask.cli import AppGroup, ScriptInfo

from rf_jobs import sync
from rf_jobs.cli import equipment
from rf_jobs.client.pending import AsyncHandled, Handled, Pending, R
from rf_jobs.contrib.hosting import PerProcess, overrides, settings_of, worker_command
from rf_jobs.model.context import JobContext
from rf_jobs.model.job import Job
from rf_jobs.model.middleware import Handle, Middleware
from rf_jobs.words.errors import ConfigError
from rf_jobs.worker.commission import Attach, Commission
from rf_jobs.worker.pool import WorkerPool

CONFIG = "RF_JOBS"
_PLACE = "rf_jobs"


class RfJobs:
    """The extension. Settings are ``app.config["RF_JOBS"]``, laid out as the table ``[jobs]`` of the configuration file, and
    what that leaves out as everywhere. The manager connects at its first use, in each process of its own."""

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Add it to an application. Raises ``ConfigError`` for settings that are wrong."""
        settings = settings_of(_given(app), f"app.config[{CONFIG!r}]")
        app.extensions[_PLACE] = PerProcess(partial(sync.QueueManager, settings))
        app.cli.add_command(_commands(app))

    @property
    def manager(self) -> sync.QueueManager:
        """The current application's manager, in this process."""
        found: PerProcess | None = current_app.extensions.get(_PLACE)
        if found is None:
            raise ConfigError(f"the application {current_app.name!r} has no queue manager; call jobs.init_app(app)")
        return found.manager()

    @overload
    def dispatch(self, job: AsyncHandled[R]) -> Pending[R]: ...
    @overload
    def dispatch(self, job: Handled[R]) -> Pending[R]: ...
    def dispatch(self, job: Any) -> Pending[Any]:
        """A builder; its ``sync()`` dispatches and answers with the job's id."""
        return self.manager.dispatch(job)

    def dispatch_many(self, jobs: Iterable[Job | Pending[Any]]) -> list[UUID]:
        """Dispatch many at once; answers with their ids."""
        return self.manager.dispatch_many(jobs)

    def close(self, app: Flask) -> None:
        """Close this process's manager of ``app``, for tests."""
        app.extensions[_PLACE].close()


def _given(app: Flask) -> Mapping[str, Any]:
    given: Mapping[str, Any] = app.config.get(CONFIG, {})
    return given


class AppContext(Middleware):
    """Runs each job inside an application context of its own. Contextvars carry it to handlers that run in threads;
    ``executor="process"`` starts without one."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    async def around(self, ctx: JobContext, job: Any, handle: Handle) -> Any:
        with self._app.app_context():
            return await handle()


APP_VARIABLE = "FLASK_APP"


def equip(commission: Commission) -> Attach:
    """What each process of ``flask rf-jobs worker`` is equipped with: the application, and what ``rf-jobs worker`` has.
    Raises ``ConfigError``."""
    app = ScriptInfo(app_import_path=os.environ.get(APP_VARIABLE)).load_app()
    inner = equipment.equip(commission)

    @asynccontextmanager
    async def attach(pool: WorkerPool) -> AsyncGenerator[None, None]:
        pool.manager.middleware.add(AppContext(app))
        async with inner(pool):
            yield

    return attach


def _commands(app: Flask) -> AppGroup:
    group = AppGroup("rf-jobs", help="Background jobs.")
    group.add_command(worker_command(partial(_base, app), f"{__name__}:{equip.__name__}"))
    return group


def _base(app: Flask) -> dict[str, object]:
    """What the configuration says; and the worker's processes get to know which application this is."""
    info = click.get_current_context().find_object(ScriptInfo)
    if info is not None and info.app_import_path:
        os.environ[APP_VARIABLE] = info.app_import_path
    return overrides(_given(app), f"app.config[{CONFIG!r}]")
