"""Flask: an extension with synchronous dispatch. ``flask --app examples.flask_app rf-jobs worker`` runs the jobs."""

import asyncio
import json
import threading
import urllib.request

from flask import Flask, current_app
from werkzeug.serving import make_server

from examples.here import run
from rf_jobs import Job, JobContext, QueueManager, WorkerPool
from rf_jobs.contrib.flask import AppContext, RfJobs

jobs = RfJobs()


class Welcome(Job, name="flask.welcome"):
    name: str

    def handle(self, ctx: JobContext) -> str:  # a plain function runs in a thread, inside an application context
        return f"{current_app.config['GREETING']}, {self.name}"


def create_app(redis_url: str | None = None) -> Flask:
    app = Flask(__name__)
    app.config["GREETING"] = "welcome"
    app.config["RF_JOBS"] = {"redis_url": redis_url}  # None: as the configuration says
    jobs.init_app(app)

    @app.post("/users/<name>")
    def sign_up(name: str) -> tuple[dict[str, str], int]:
        return {"job": str(jobs.dispatch(Welcome(name=name)).sync())}, 202

    @app.get("/jobs/<job_id>")
    def look(job_id: str) -> dict[str, str]:
        return {"result": jobs.manager.wait(job_id, timeout=10)}

    return app


def visit(app: Flask) -> str:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever).start()
    url = f"http://127.0.0.1:{server.server_port}"
    with urllib.request.urlopen(urllib.request.Request(f"{url}/users/ada", method="POST")) as answer:
        job_id = json.load(answer)["job"]
    with urllib.request.urlopen(f"{url}/jobs/{job_id}") as answer:
        result: str = json.load(answer)["result"]
    server.shutdown()
    server.server_close()
    jobs.close(app)
    return result


async def main(manager: QueueManager) -> None:
    app = create_app(manager.settings.jobs.redis_url)
    manager.middleware.add(AppContext(app))  # `flask rf-jobs worker` does it by itself
    async with WorkerPool(manager=manager):
        result = await asyncio.to_thread(visit, app)
    print(result)
    assert result == "welcome, ada"


if __name__ == "__main__":
    run(main)
