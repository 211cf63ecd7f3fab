"""aiohttp's server::

    app = web.Application()
    app.cleanup_ctx.append(jobs())

    async def sign_up(request: web.Request) -> web.Response:
        job_id = await request.config_dict[JOBS].dispatch(SendEmail(to="ada@example.org"))
        return web.json_response({"job": str(job_id)})

``Queue.dispatch`` works in handlers too, through the same manager.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from aiohttp import web

from rf_jobs.client.manager import QueueManager
from rf_jobs.contrib.hosting import serving
from rf_jobs.words.config_settings import Settings

JOBS = web.AppKey("rf_jobs", QueueManager)
"""Where an application keeps its manager; ``request.config_dict`` finds it from nested applications too."""


def jobs(
    target: str | Settings | QueueManager | None = None,
) -> Callable[[web.Application], AsyncGenerator[None, None]]:
    """For ``cleanup_ctx``: a manager is connected when the application starts and closed when it ends. Without ``target``
    the configuration decides. The application does not start where the server cannot be used (``BackendError``,
    ``ConfigError``)."""

    async def live(app: web.Application) -> AsyncGenerator[None, None]:
        async with serving(target) as manager:
            app[JOBS] = manager
            yield

    return live
