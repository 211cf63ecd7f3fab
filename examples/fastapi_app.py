"""FastAPI: the lifespan connects, the dependency ``Jobs`` dispatches. Served for real: uvicorn examples.fastapi_app:app"""

import asyncio
import socket

import aiohttp
import uvicorn
from fastapi import FastAPI

from examples.here import run
from rf_jobs import Job, JobContext, QueueManager, WorkerPool
from rf_jobs.contrib.fastapi import Jobs, lifespan

app = FastAPI(lifespan=lifespan())  # the server's URL: rf-jobs.toml, or RF_JOBS_REDIS_URL


class Welcome(Job, name="fastapi.welcome"):
    name: str

    async def handle(self, ctx: JobContext) -> str:
        return f"welcome, {self.name}"


@app.post("/users/{name}", status_code=202)
async def sign_up(name: str, jobs: Jobs) -> dict[str, str]:
    return {"job": str(await jobs.dispatch(Welcome(name=name)))}


@app.get("/jobs/{job_id}")
async def look(job_id: str, jobs: Jobs) -> dict[str, str]:
    return {"result": await jobs.wait(job_id, timeout=10)}


async def main(manager: QueueManager) -> None:
    app.router.lifespan_context = lifespan(manager)  # here: the example's own server
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with WorkerPool(manager=manager), aiohttp.ClientSession(url) as http:
            job_id = (await (await http.post("/users/ada")).json())["job"]
            answer = await (await http.get(f"/jobs/{job_id}")).json()
        server.should_exit = True
        await serving
    print(answer)
    assert answer == {"result": "welcome, ada"}


if __name__ == "__main__":
    run(main)
