"""FastAPI (and Starlette)::

    app = FastAPI(lifespan=lifespan())

    @app.post("/users")
    async def sign_up(user: User, jobs: Jobs) -> dict[str, str]:
        job_id = await jobs.dispatch(SendEmail(to=user.email))
        return {"job": str(job_id)}

``Queue.dispatch`` works in handlers too, through the same manager.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from rf_jobs.client.manager import QueueManager
from rf_jobs.contrib.hosting import serving
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.errors import ConfigError

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]]
Inside = Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]] | AbstractAsyncContextManager[None]]
_PLACE = "rf_jobs"


def lifespan(target: str | Settings | QueueManager | None = None, *, inside: Inside | None = None) -> Lifespan:
    """An application's lifespan: a manager is connected when it starts and closed when it ends. ``inside`` is the
    application's own, which may use the manager. Without ``target`` the configuration decides.

    The application does not start where the server cannot be used (``BackendError``, ``ConfigError``).
    """

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncGenerator[Mapping[str, Any], None]:
        async with serving(target) as manager:
            setattr(app.state, _PLACE, manager)
            if inside is None:
                yield {}
            else:
                async with inside(app) as state:
                    yield state or {}

    return live


def manager_of(connection: HTTPConnection) -> QueueManager:
    """The application's manager, for a request or a websocket. Raises ``ConfigError`` where its lifespan is not ours."""
    found: QueueManager | None = getattr(connection.app.state, _PLACE, None)
    if found is None:
        raise ConfigError("the application has no queue manager; make it with FastAPI(lifespan=lifespan())")
    return found


Jobs = Annotated[QueueManager, Depends(manager_of)]
"""The type of a parameter that gets the manager."""
