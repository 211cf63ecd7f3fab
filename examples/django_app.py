"""Django in one file, which is its own settings module: dispatch at once, after the commit, and through the outbox. In a real
project the jobs are in ``<app>/jobs.py``, where they are found by themselves."""

import asyncio
import os
import socket
import sys
import tempfile
from contextlib import ExitStack
from subprocess import Popen

import aiohttp
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path

from examples.here import run
from rf_jobs import Job, JobContext, QueueManager
from rf_jobs.contrib.django import dispatch, dispatch_on_commit, outbox

INSTALLED_APPS = ["rf_jobs.contrib.django"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.db"}}
ROOT_URLCONF = "examples.django_app"
ALLOWED_HOSTS = ["127.0.0.1"]
SECRET_KEY = "of this example"
USE_TZ = True
RF_JOBS = {"worker": {"max_concurrent_jobs": 4}}  # as in rf-jobs.toml; the server's URL is in RF_JOBS_REDIS_URL


class Welcome(Job, name="django.welcome"):
    name: str

    def handle(self, ctx: JobContext) -> str:
        return f"welcome, {self.name}"


def sign_up(_: HttpRequest, name: str) -> JsonResponse:
    now = dispatch(Welcome(name=name)).sync()  # at once
    with transaction.atomic():
        after = dispatch_on_commit(Welcome(name=name))  # when this block has committed
        exact = outbox.dispatch(Welcome(name=name))  # if and only if it commits, whatever dies
    return JsonResponse({"jobs": [str(now), str(after), str(exact)]}, status=202)


urlpatterns = [path("users/<name>", sign_up)]


async def visit(url: str) -> list[str]:
    async with aiohttp.ClientSession(url) as http:
        while True:
            try:
                answer = await http.get("/users/ada")
            except aiohttp.ClientConnectionError:  # it is still starting
                await asyncio.sleep(0.05)
            else:
                ids: list[str] = (await answer.json())["jobs"]
                return ids


async def main(manager: QueueManager) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "DJANGO_SETTINGS_MODULE": "examples.django_app"}
    env["RF_JOBS_REDIS_URL"] = manager.settings.jobs.redis_url
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:

        def manage(*words: str) -> Popen[bytes]:
            process = Popen([sys.executable, "-m", "django", *words], cwd=folder, env=env)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            return process

        assert manage("migrate", "--verbosity", "0").wait() == 0
        manage("runserver", "--noreload", "--verbosity", "0", address)
        manage("rf_jobs_worker")
        manage("rf_jobs_outbox")
        ids = await visit(f"http://{address}")
        async with asyncio.timeout(20):
            while (await manager.counts("default"))["completed"] < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        results = [await manager.wait(job_id) for job_id in ids]
    print(results)
    assert results == ["welcome, ada"] * 3


if __name__ == "__main__":
    run(main)
