"""Flask for real: gunicorn forks it after loading, and its own command runs the jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask

from rf_jobs import sync
from rf_jobs.contrib.flask import RfJobs
from rf_jobs.words.errors import ConfigError
from tests.contrib.web import ask, free_port, serving
from tests.support.processes import ROOT, process, said, wait_until


def environment(redis_url: str) -> dict[str, str]:
    return {
        "TEST_RF_JOBS": json.dumps(
            {"redis_url": redis_url, "worker": {"queues": ["flask"]}, "telemetry": {"tracing": False}}
        )
    }


def test_a_site_on_a_server_that_forks(redis_url: str, tmp_path: Path) -> None:
    env, port = environment(redis_url), free_port()
    gunicorn = (
        "gunicorn", "--preload", "--workers", "2", "--bind", f"127.0.0.1:{port}", "--no-control-socket",
        "tests.contrib.flask_site:preloaded()",
    )  # fmt: skip
    flask = (sys.executable, "-m", "flask", "--app", "tests.contrib.flask_site:create_app", "rf-jobs", "worker")
    with serving(*gunicorn, port=port, log=tmp_path / "gunicorn", env=env) as url:
        answers = [ask(f"{url}/greet/n{number}", method="POST") for number in range(20)]
        log = tmp_path / "worker"
        with process(*flask, log=log, env=env) as worker:
            said(worker, log, "serves flask")
            for number, answer in enumerate(answers):
                assert [ask(f"{url}/jobs/{each}")["result"] for each in answer["jobs"]] == [f"hello, n{number}"] * 2
            with sync.QueueManager(redis_url) as manager:
                wait_until(lambda: manager.counts("flask")["completed"] == 41, "all have run")
        assert worker.returncode == 0, log.read_text()


def test_options_override_the_configuration(redis_url: str) -> None:
    command = [
        sys.executable,
        "-m",
        "flask",
        "--app",
        "tests.contrib.flask_site",
        "rf-jobs",
        "worker",
        "--max-attempts",
        "0",
    ]
    env = {**os.environ, **environment(redis_url)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "jobs.max_attempts is '0'" in done.stderr


def test_bad_input() -> None:
    app = Flask("site")
    app.config["RF_JOBS"] = {"redis_url": "http://x"}
    with pytest.raises(ConfigError, match=r"jobs.redis_url is 'http://x'"):
        RfJobs(app)
    app.config["RF_JOBS"] = {"queus": ["a"]}
    with pytest.raises(ConfigError, match=r"app.config\['RF_JOBS'\] has the unknown setting 'queus'"):
        RfJobs(app)
    with (
        app.app_context(),
        pytest.raises(ConfigError, match=r"the application 'site' has no queue manager; call jobs\.init_app"),
    ):
        _ = RfJobs().manager
