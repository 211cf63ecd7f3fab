"""FastAPI under uvicorn and aiohttp's own server, in processes of their own and in this one."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from aiohttp import web
from fastapi import FastAPI
from starlette.requests import HTTPConnection

import rf_jobs
from rf_jobs import BackendError, Queue, QueueManager, events
from rf_jobs.client.queue import default_manager
from rf_jobs.contrib.aiohttp import JOBS, jobs
from rf_jobs.contrib.fastapi import Jobs, lifespan, manager_of
from rf_jobs.words.errors import ConfigError
from tests.contrib.web import ask, free_port, serving
from tests.support.jobs import QUEUE, Add
from tests.support.processes import process, said
from tests.support.processes import rf_jobs as command

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def _unconfigured() -> Any:
    rf_jobs.configure(None)
    yield
    rf_jobs.configure(None)


@pytest.mark.parametrize("framework", ["fastapi", "aiohttp"])
def test_served_for_real(framework: str, redis_url: str, tmp_path: Path) -> None:
    port, env = free_port(), {"RF_JOBS_REDIS_URL": redis_url, "RF_JOBS_TELEMETRY_TRACING": "false"}
    server = {
        "fastapi": ("uvicorn", "examples.fastapi_app:app", "--port", str(port)),
        "aiohttp": ("aiohttp.web", "-H", "127.0.0.1", "-P", str(port), "tests.contrib.aiohttp_site:create"),
    }[framework]
    log = tmp_path / "worker"
    with serving(*server, port=port, log=tmp_path / "server", env=env) as url:
        with process(*command("worker", f"examples.{framework}_app"), log=log, env=env) as worker:
            said(worker, log, "serves")
            job_id = ask(f"{url}/users/ada", method="POST")["job"]
            assert ask(f"{url}/jobs/{job_id}") == {"result": "welcome, ada"}
        assert worker.returncode == 0


def test_a_server_that_cannot_be_used_keeps_the_application_from_starting(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "uvicorn", "examples.fastapi_app:app", "--port", str(free_port())]

    env = {**os.environ, "RF_JOBS_REDIS_URL": NOWHERE}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "no answer from the server at redis://127.0.0.1:1/0" in done.stderr


# --- FastAPI -----------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def served(app: FastAPI) -> AsyncGenerator[aiohttp.ClientSession, None]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        running = asyncio.create_task(server.serve(sockets=[listening]))
        async with aiohttp.ClientSession(f"http://127.0.0.1:{listening.getsockname()[1]}") as http:
            yield http
        server.should_exit = True
        await running


async def test_the_default_queue_uses_the_same_manager(redis_url: str) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncGenerator[dict[str, Any], None]:
        seen.append("in")
        default_manager().bus.subscribe(events.JobDispatched, lambda event: seen.append(event.job_class))
        yield {"word": "kept"}
        seen.append("out")

    app = FastAPI(lifespan=lifespan(redis_url, inside=own))

    @app.post("/")
    async def add(jobs: Jobs) -> dict[str, Any]:
        await jobs.dispatch(Add(a=1, b=2))
        await Queue.dispatch(Add(a=1, b=2))
        return {"same": default_manager() is jobs, "size": await jobs.size(QUEUE)}

    async with served(app) as http:
        assert await (await http.post("/")).json() == {"same": True, "size": 2}
    assert seen == ["in", "tests.support.jobs:Add", "tests.support.jobs:Add", "out"]


async def test_a_manager_of_ones_own_stays_open(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager:
        app = FastAPI()
        async with lifespan(manager)(app):
            assert app.state.rf_jobs is manager
            assert default_manager() is manager
        assert not manager.store.closed


async def test_without_the_lifespan() -> None:
    app = FastAPI()

    @app.post("/")
    async def add(jobs: Jobs) -> None: ...

    async with served(app) as http:
        assert (await http.post("/")).status == 500
    with pytest.raises(ConfigError, match=r"make it with FastAPI\(lifespan=lifespan\(\)\)"):
        manager_of(HTTPConnection({"type": "http", "app": app}))


async def test_a_bad_url() -> None:
    with pytest.raises(ConfigError, match=r"jobs\.redis_url is 'nonsense'"):
        async with lifespan("nonsense")(FastAPI()):
            pass


# --- aiohttp -----------------------------------------------------------------------------------------------------------------


async def test_nested_applications(redis_url: str) -> None:
    async def add(request: web.Request) -> web.Response:
        manager = request.config_dict[JOBS]
        await manager.dispatch(Add(a=1, b=2))
        await Queue.dispatch(Add(a=1, b=2))
        return web.json_response(await manager.size(QUEUE))

    inner, app = web.Application(), web.Application()
    inner.add_routes([web.post("/add", add)])
    app.add_subapp("/inner", inner)
    app.cleanup_ctx.append(jobs(redis_url))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as http:
        answer = await http.post("/inner/add")
        assert await answer.json() == 2
    manager = app[JOBS]
    await runner.cleanup()
    assert manager.store.closed


async def test_an_application_that_cannot_start() -> None:
    app = web.Application()
    app.cleanup_ctx.append(jobs(NOWHERE))
    runner = web.AppRunner(app)
    with pytest.raises(BackendError, match="no answer"):
        await runner.setup()
    await runner.cleanup()
