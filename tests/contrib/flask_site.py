"""A Flask application for the tests. It dispatches as soon as it is loaded, before a server forks: the children must not share
what that started."""

from __future__ import annotations

import json
import os
import threading

from flask import Flask, current_app

from rf_jobs import Job, JobContext
from rf_jobs.contrib.flask import RfJobs

jobs = RfJobs()


class Greet(Job, queue="flask", max_attempts=1):
    name: str

    def handle(self, ctx: JobContext) -> str:
        assert threading.current_thread() is not threading.main_thread()
        return f"{current_app.config['GREETING']}, {self.name}"


class GreetAsync(Job, queue="flask", max_attempts=1):
    name: str

    async def handle(self, ctx: JobContext) -> str:
        return f"{current_app.config['GREETING']}, {self.name}"


def create_app() -> Flask:
    app = Flask("site")
    app.config["GREETING"] = "hello"
    app.config["RF_JOBS"] = json.loads(os.environ.get("TEST_RF_JOBS", "{}"))
    jobs.init_app(app)

    @app.post("/greet/<name>")
    def greet(name: str) -> dict[str, object]:
        one = jobs.dispatch(Greet(name=name)).delay(0).sync()
        two = jobs.dispatch_many([GreetAsync(name=name)])[0]
        return {"pid": os.getpid(), "jobs": [str(one), str(two)]}

    @app.get("/jobs/<job_id>")
    def look(job_id: str) -> dict[str, object]:
        return {"result": jobs.manager.wait(job_id, timeout=10)}

    return app


def preloaded() -> Flask:
    """With a dispatch before the fork."""
    app = create_app()
    with app.app_context():
        jobs.dispatch(Greet(name="parent")).sync()
    return app
