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

from collections.abc import Iterable
from functools import partial
from importlib import import_module
from typing import Any, overload
from uuid import UUID

import click
from flask import Flask, current_app
from flask.cli import AppGroup

from rf_jobs import sync
from rf_jobs.client.pending import AsyncHandled, Handled, Pending, R
from rf_jobs.contrib.hosting import PerProcess, settings_of
from rf_jobs.model.context import JobContext
from rf_jobs.model.job import Job
from rf_jobs.model.middleware import Handle, Middleware
from rf_jobs.words.errors import ConfigError

CONFIG = "RF_JOBS"
WHERE = f"app.config[{CONFIG!r}]"
_PLACE = "rf_jobs"


class RfJobs:
    """The extension. Settings are ``app.config["RF_JOBS"]``, laid out as the table ``[jobs]`` of the configuration file, and
    what that leaves out as everywhere. The manager connects at its first use, in each process of its own."""

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Add it to an application. Raises ``ConfigError`` for settings that are wrong."""
        settings = settings_of(app.config.get(CONFIG, {}), WHERE)
        app.extensions[_PLACE] = PerProcess(partial(sync.QueueManager, settings))
        app.cli.add_command(_Commands("rf-jobs", help="Background jobs."))

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


class AppContext(Middleware):
    """Runs each job inside an application context of its own. Contextvars carry it to handlers that run in threads;
    ``executor="process"`` starts without one."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    async def around(self, ctx: JobContext, job: Any, handle: Handle) -> Any:
        with self._app.app_context():
            return await handle()


class _Commands(AppGroup):
    """What runs jobs is imported when it is asked for: a server needs none of it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["worker"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "worker":
            return None
        command: click.Command = import_module("rf_jobs.contrib.flask_worker").command
        return command
