"""explain, batches, limits, pause and resume of classes and tags, jobs move."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner

from rf_jobs import Batch, Chain
from rf_jobs.cli.app import App
from rf_jobs.sync import QueueManager
from tests.support.flow_jobs import QUEUE, Note

Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def run(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("RF_JOBS_REDIS_URL", redis_url)
    monkeypatch.setenv("RF_JOBS_TELEMETRY_TRACING", "false")

    def run(*args: str) -> tuple[int, Any]:
        done = CliRunner().invoke(App(), [*args])
        return done.exit_code, json.loads(done.stdout) if "--json" in args and done.stdout else done.output

    return run


@pytest.fixture
def job(redis_url: str) -> UUID:
    with QueueManager(redis_url) as manager:
        return manager.dispatch(Note(what="x")).tags("tenant:7").sync()


@pytest.fixture
def batch(redis_url: str) -> UUID:
    with QueueManager(redis_url) as manager:
        return manager.send_group(Batch([Note(what="a"), Chain([Note(what="b"), Note(what="c")])]).name("letters"))


def test_explain(run: Run, job: UUID) -> None:
    code, text = run("explain", str(job))
    assert code == 0
    assert f"Note {job} in {QUEUE} is ready:\n- no live worker serves queue {QUEUE}" in text
    code, found = run("explain", str(job), "--json")
    assert [reason["code"] for reason in found["reasons"]] == ["no_worker", "next"]
    assert run("explain", "01a21975-0000-7000-8000-000000000000")[0] == 4


def test_batches(run: Run, batch: UUID) -> None:
    code, found = run("batches", "list", "--json")
    assert code == 0
    assert {(each["kind"], each["name"], each["total"], each["pending"]) for each in found["batches"]} == {
        ("batch", "letters", 2, 2),
        ("chain", "", 2, 2),
    }
    assert "letters" in run("batches", "list")[1]
    code, text = run("batches", "show", str(batch))
    assert "0 of 2, 0 failed" in text
    assert run("batches", "cancel", str(batch)) == (0, f"{batch}: cancelled\n")
    assert run("batches", "cancel", str(batch))[0] == 1
    code, shown = run("batches", "show", str(batch), "--json")
    assert (shown["state"], shown["failed"], len(shown["failed_jobs"])) == ("cancelled", 2, 3)
    assert run("batches", "retry", str(batch))[0] == 1
    assert run("batches", "show", "01a21975-0000-7000-8000-000000000000")[0] == 4


def test_limits(run: Run) -> None:
    assert run("limits", "list") == (0, "no limit is defined\n")
    code, found = run(
        "limits", "set", "model-api", "--concurrency", "3", "--rate", "5", "--per", "1m", "--bucket", "--json"
    )
    assert (code, found["concurrency"], found["rate"], found["per_seconds"], found["algorithm"]) == (
        0,
        3,
        5,
        60,
        "bucket",
    )
    assert "5 in 60 s" in run("limits", "list")[1]
    code, found = run("limits", "reset", "model-api", "--json")
    assert (found["concurrency"], found["rate"], found["overridden"]) == (None, None, False)
    assert run("limits", "set", "model-api", "--rate", "5")[0] == 2
    assert run("limits", "set", "model-api", "--concurrency", "0")[0] == 2


def test_pause_a_class_and_a_tag(run: Run, job: UUID) -> None:
    name = Note.__job_class__.name
    assert run("pause", "--class", name, "--tag", "tenant:7", "--for", "10m") == (
        0,
        f"class {name}: paused\ntag tenant:7: paused\n",
    )
    _, found = run("explain", str(job), "--json")
    assert [reason["code"] for reason in found["reasons"]] == ["paused", "paused", "no_worker", "next"]
    _, found = run("resume", "--class", name, "--tag", "tenant:7", "--json")
    assert found == {
        "queues": [],
        "classes": [{"name": name, "changed": True}],
        "tags": [{"name": "tenant:7", "changed": True}],
    }
    assert run("resume", "--tag", "tenant:7")[1] == "tag tenant:7: was resumed already\n"
    assert run("pause")[0] == 2
    assert run("pause", QUEUE, "--for", "5s")[0] == 2


def test_move(run: Run, job: UUID) -> None:
    assert run("jobs", "move", str(job), "--priority", "critical", "--delay", "1h") == (0, f"{job}: moved\n")
    _, found = run("jobs", "show", str(job), "--json")
    assert (found["state"], found["priority"]) == ("scheduled", 3)
    assert run("jobs", "move", str(job), "--now", "--json")[1] == {"id": str(job), "moved": True}
    assert run("jobs", "move", str(job))[0] == 2
    assert run("jobs", "move", str(job), "--now", "--delay", "5s")[0] == 2
    assert run("jobs", "cancel", str(job))[0] == 0
    assert run("jobs", "move", str(job), "--now")[0] == 1


def test_a_batch_that_is_not_known(run: Run) -> None:
    for verb in ("show", "cancel", "retry"):
        code, text = run("batches", verb, "01a21975-0000-7000-8000-000000000000")
        assert code == 4, (verb, text)
        assert "no batch 01a21975" in text


def test_what_others_wrote_does_not_steer_the_terminal(run: Run, redis_url: str) -> None:
    code, text = run("pause", "--class", "a\x1b]0;b\x07")
    assert (code, text) == (0, "class a\\x1b]0;b\\x07: paused\n")
    with QueueManager(redis_url) as manager:
        job = manager.dispatch(Note(what="x")).delay(100).sync()
        manager.cancel(job, "a\x1b]0;b\x07\rc")
    code, text = run("jobs", "wait", str(job))
    assert code == 1
    assert "a\\x1b]0;b\\x07\\rc" in text
