"""aiohttp: ``cleanup_ctx`` connects, ``request.config_dict[JOBS]`` dispatches."""

import aiohttp
from aiohttp import web

from examples.here import run
from rf_jobs import Job, JobContext, QueueManager, WorkerPool
from rf_jobs.contrib.aiohttp import JOBS, jobs


class Welcome(Job, name="aiohttp.welcome"):
    name: str

    async def handle(self, ctx: JobContext) -> str:
        return f"welcome, {self.name}"


async def sign_up(request: web.Request) -> web.Response:
    job_id = await request.config_dict[JOBS].dispatch(Welcome(name=request.match_info["name"]))
    return web.json_response({"job": str(job_id)}, status=202)


async def look(request: web.Request) -> web.Response:
    result = await request.config_dict[JOBS].wait(request.match_info["job_id"], timeout=10)
    return web.json_response({"result": result})


def create_app(target: QueueManager | None = None) -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(jobs(target))  # None: the server's URL is in rf-jobs.toml, or RF_JOBS_REDIS_URL
    app.add_routes([web.post("/users/{name}", sign_up), web.get("/jobs/{job_id}", look)])
    return app


async def main(manager: QueueManager) -> None:
    runner = web.AppRunner(create_app(manager))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with WorkerPool(manager=manager), aiohttp.ClientSession(url) as http:
        job_id = (await (await http.post("/users/ada")).json())["job"]
        answer = await (await http.get(f"/jobs/{job_id}")).json()
    await runner.cleanup()
    print(answer)
    assert answer == {"result": "welcome, ada"}


if __name__ == "__main__":
    run(main)
