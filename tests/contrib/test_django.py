"""Django for real: gunicorn forks it after loading, PostgreSQL and SQLite, its own commands as processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rf_jobs import ConfigError, ExecutionFailed, State, sync
from rf_jobs.contrib.hosting import settings_of
from tests.contrib.web import ask, free_port, serving
from tests.support.postgres import Postgres
from tests.support.processes import ROOT, process, wait_until

MODULE = "tests.contrib.site.settings"


@pytest.fixture
def env(database: tuple[str, str], redis_url: str) -> dict[str, str]:
    """Of a site whose tables are made."""
    return migrated(database[0], redis_url)


@pytest.fixture
def small(tmp_path: Path, redis_url: str) -> dict[str, str]:
    """The same on SQLite alone."""
    return migrated(f"sqlite:///{tmp_path / 'small.db'}", redis_url)


def migrated(url: str, redis_url: str) -> dict[str, str]:
    made = environment(url, redis_url)
    done = manage(made, "migrate", "--run-syncdb", "--verbosity", "0")
    assert done.returncode == 0, done.stderr
    return made


def environment(url: str, redis_url: str) -> dict[str, str]:
    settings = {
        "redis_url": redis_url,
        "worker": {"queues": ["site"], "max_concurrent_jobs": 1},
        "telemetry": {"tracing": False},
    }
    return {
        "DJANGO_SETTINGS_MODULE": MODULE, "TEST_DATABASE_URL": url, "TEST_RF_JOBS": json.dumps(settings),
        "PYTHONWARNINGS": "error::RuntimeWarning",
    }  # fmt: skip


def manage(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return python(env, "-m", "django", *words)


def python(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command, everything = [sys.executable, *words], {**os.environ, **env}
    return subprocess.run(command, cwd=ROOT, env=everything, capture_output=True, text=True, timeout=60, check=False)


def shell(env: dict[str, str], code: str) -> str:
    done = python(env, "-c", f"import django; django.setup()\n{code}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def command(env: dict[str, str], tmp_path: Path, *words: str) -> Generator[Path]:
    log = tmp_path / words[0]
    with process(sys.executable, "-m", "django", *words, log=log, env=env) as running:
        wait_until(
            lambda: "serves" in log.read_text() or "starts" in log.read_text() or running.poll() is not None,
            "it starts",
        )
        assert running.poll() is None, log.read_text()
        yield log
    assert running.returncode == 0, log.read_text()


def test_a_site_on_a_server_that_forks(env: dict[str, str], redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    gunicorn = (
        "gunicorn",
        "--preload",
        "--workers",
        "2",
        "--bind",
        f"127.0.0.1:{port}",
        "--no-control-socket",
        "tests.contrib.site.wsgi",
    )
    damaged = "from rf_jobs.contrib.django.models import OutboxJob as Row"
    shell(
        env, f"import uuid; {damaged}; Row.objects.create(id=uuid.uuid4(), queue='site', job_class='x', draft=b'junk')"
    )
    with serving(*gunicorn, port=port, log=tmp_path / "gunicorn", env=env) as url:
        answers = [ask(f"{url}/orders/{number}") for number in range(8)]
        failed = [ask(f"{url}/orders/{number}?fail") for number in range(8, 10)]
        with (
            command(env, tmp_path, "rf_jobs_worker"),
            command(env, tmp_path, "rf_jobs_outbox"),
            sync.QueueManager(redis_url) as manager,
        ):
            count = 1 + 8 * 4 + 2 * 2
            wait_until(lambda: manager.counts("site")["completed"] >= count, "all have run", 60)
            assert manager.counts("site")["completed"] == count
            assert ask(f"{url}/jobs/{answers[-1]['outbox']}") == {"result": 8}
            assert {
                manager.job(each[how]).state for each in answers for how in ("now", "default", "commit", "outbox")
            } == {"completed"}
            assert "outbox" in manager.job(answers[0]["outbox"]).tags
            known = {str(record.id) for record in manager._run(_all)}
    left = shell(env, f"{damaged}; print([row.problem for row in Row.objects.all()])")
    assert left.startswith("['its bytes are not those of a dispatch"), left
    assert not known & {each[how] for each in failed for how in ("commit", "outbox")}
    assert known >= {each[how] for each in failed for how in ("now", "default")}


async def _all(manager: Any) -> list[Any]:
    ids = await manager.inspector.ids(State.COMPLETED, "site", 0, 1000)
    records: list[Any] = await manager.inspector.records(ids, "site")
    return records


def test_broken_connections_are_closed(pg_server: Postgres, pg: str, redis_url: str, tmp_path: Path) -> None:
    env = environment(pg_server.url(pg), redis_url)
    assert manage(env, "migrate", "--run-syncdb", "--verbosity", "0").returncode == 0
    code = "from rf_jobs.contrib.django import dispatch; from tests.contrib.site.jobs import Backend"
    ids = shell(env, f"{code}\nfor queue in 'abcd': print(dispatch(Backend()).on_queue(queue).sync())").split()
    jobs = iter(zip("abcd", ids, strict=True))
    with sync.QueueManager(redis_url) as manager:

        def run() -> object:
            queue, job_id = next(jobs)
            manager.resume(queue)
            try:
                return manager.wait(job_id, timeout=20)
            except ExecutionFailed as error:
                return error.error_type

        for queue in "abcd":
            manager.pause(queue)
        with command(env, tmp_path, "rf_jobs_worker", "--queues", "a,b,c,d"):
            first = run()
            assert run() == first, "it is kept"
            pg_server.run(f"SELECT pg_terminate_backend({first})")
            assert run() == "django.db.utils.OperationalError", "nobody knew"
            assert isinstance(run(), int), "and now it is known"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"redis_urll": "redis://x"}, "RF_JOBS has the unknown setting 'redis_urll'; did you mean 'redis_url'?"),
        ({"worker": 3}, "RF_JOBS['worker'] is 3; give a mapping"),
        ({"worker": {"proceses": 2}}, "has the unknown setting 'worker.proceses'; did you mean 'worker.processes'?"),
        ({"max_attempts": 0}, "jobs.max_attempts is 0 (from argument)"),
        ([], "RF_JOBS is []; give a mapping"),
    ],
)
def test_settings_that_are_wrong(given: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        settings_of(given, "RF_JOBS")


def test_settings_that_are_wrong_are_found_at_the_start() -> None:
    env = {"DJANGO_SETTINGS_MODULE": MODULE, "TEST_RF_JOBS": json.dumps({"redis_url": "nonsense"})}
    done = manage(env, "check")
    assert done.returncode != 0
    assert "jobs.redis_url is 'nonsense'" in done.stderr


def test_a_worker_without_a_settings_module() -> None:
    code = """
from django.conf import settings
from django.core.management import execute_from_command_line
settings.configure(INSTALLED_APPS=["rf_jobs.contrib.django"])
execute_from_command_line(["manage.py", "rf_jobs_worker"])
"""
    done = python({}, "-c", code)
    assert done.returncode == 2
    assert "DJANGO_SETTINGS_MODULE is not set, so the worker's processes would not find the settings" in done.stderr


def test_the_migration_is_current(small: dict[str, str]) -> None:
    done = manage(small, "makemigrations", "rf_jobs", "--check", "--dry-run")
    assert done.returncode == 0, done.stdout


def test_what_does_not_fit_is_refused_before_the_commit(small: dict[str, str], redis_url: str) -> None:
    said = shell(
        small,
        """
from django.db import transaction
from rf_jobs import SerializationError
from rf_jobs.contrib.django import dispatch_on_commit, outbox
from tests.support.jobs import Add
for how in (dispatch_on_commit, outbox.dispatch):
    try:
        with transaction.atomic():
            how(Add(a="one", b=2))
    except SerializationError as error:
        print(error)
""",
    )
    assert said.count("Add cannot be dispatched: field 'a'") == 2
    with sync.QueueManager(redis_url) as manager:
        assert manager.queues() == []


def test_tests_may_override_the_settings(small: dict[str, str], redis_url: str) -> None:
    said = shell(
        small,
        f"""
from django.test.utils import override_settings
from rf_jobs.contrib.django import dispatch
from tests.contrib.site.jobs import CountOrders
with override_settings(RF_JOBS={{"redis_url": {redis_url!r}, "namespace": "other"}}):
    print(dispatch(CountOrders()).sync())
""",
    )
    with sync.QueueManager(redis_url, namespace="other") as manager:
        assert manager.job(said.strip()).state == "ready"
