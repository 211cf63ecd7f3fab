"""The commands on a real server, through click's runner."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from click.testing import CliRunner, Result

from rf_jobs import QueueManager, WorkerConfig, WorkerPool
from rf_jobs.cli.app import app
from tests.support.servers import ephemeral_server

# Names that no other test uses: commands find a class by its short name, among all that were ever imported here.
JOBS = """
from rf_jobs import Job, JobContext

class CliGreet(Job, name="cli:CliGreet", queue="mail", max_attempts=1):
    name: str
    times: int = 1
    tags_of: tuple[str, ...] = ()

    async def handle(self, ctx: JobContext) -> str:
        return f"hello {self.name}" * self.times

class CliBoom(Job, name="cli:CliBoom", queue="boom", max_attempts=1):
    why: str = "boom"

    async def handle(self, ctx: JobContext) -> None:
        raise ValueError(self.why)

class CliSame(Job, name="a:CliSame", queue="mail"):
    async def handle(self, ctx: JobContext) -> None: ...

class CliSame2(Job, name="b:CliSame", queue="mail"):
    async def handle(self, ctx: JobContext) -> None: ...
"""


class Cli:
    """Runs commands; ``ok`` and ``json`` expect them to succeed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runner = CliRunner()

    def __call__(self, *args: str, given: str | None = None) -> Result:
        return self.runner.invoke(app, list(args), input=given)

    def ok(self, *args: str) -> str:
        result = self(*args)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *args: str, code: int = 0) -> Any:
        result = self(*args, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    def dispatch(self, *args: str) -> str:
        return self.ok("dispatch", *args, "--import", "cli_test_jobs").strip()


@pytest.fixture
def cli(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Cli:
    (tmp_path / "cli_test_jobs.py").write_text(JOBS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("RF_JOBS_REDIS_URL", redis_url)
    return Cli(tmp_path)


@pytest.fixture
def raw(redis_url: str) -> Any:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def work_off(redis_url: str) -> Callable[..., None]:
    """Runs a worker until these jobs have ended."""

    def run(*ids: str) -> None:
        async def work() -> None:
            async with QueueManager(redis_url) as manager, WorkerPool(WorkerConfig(queues=["mail", "boom"]), manager):
                for job_id in ids:
                    try:
                        await manager.wait(job_id, 20)
                    except Exception as error:
                        assert "dead letter" in str(error) or "cancelled" in str(error), error

        asyncio.run(work())

    return run


# --- dispatch ----------------------------------------------------------------------------------------------------


def test_dispatch_prints_the_id_and_reads_values_by_the_fields_type(cli: Cli) -> None:
    job_id = cli.dispatch("CliGreet", "name=007", "times=2", 'tags_of=["a"]', "--tag", "vip", "--priority", "high")
    job = cli.json("jobs", "show", job_id, "--payload")
    assert job["payload"] == {"name": "007", "times": 2, "tags_of": ["a"]}
    assert (job["class"], job["queue"], job["state"], job["priority"], job["tags"]) == (
        "cli:CliGreet",
        "mail",
        "ready",
        2,
        ["vip"],
    )


def test_dispatch_takes_all_that_a_builder_takes(cli: Cli) -> None:
    job_id = str(uuid4())
    options = ["--queue", "other", "--delay", "1h", "--max-attempts", "7", "--expires-in", "2h", "--id", job_id]
    shown = cli.json(
        "dispatch", "cli:CliGreet", "--json-payload", '{"name": "bob"}', *options, "--import", "cli_test_jobs"
    )
    assert shown == {"id": job_id, "class": "cli:CliGreet", "queue": "other", "state": "scheduled"}
    job = cli.json("jobs", "show", job_id)
    assert job["max_attempts"] == 7
    assert job["due_at"]
    assert job["expires_at"]
    assert "payload" not in job
    again = cli("dispatch", "CliBoom", "--id", job_id, "--import", "cli_test_jobs")
    assert again.exit_code == 2
    assert f"job id {job_id} is taken by a cli:CliGreet" in again.stderr


def test_dispatch_at_a_time_that_has_passed_means_at_once(cli: Cli) -> None:
    assert cli.json("dispatch", "CliBoom", "--at", "2020-01-01T00:00", "--import", "cli_test_jobs")["state"] == "ready"


def test_modules_of_the_configuration_are_imported_too(cli: Cli) -> None:
    Path("rf-jobs.toml").write_text('[jobs]\nimports = ["cli_test_jobs"]\n')
    assert cli.ok("dispatch", "CliBoom")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["Gret", "name=x"], "no job class is called 'Gret' (known: "),
        (["CliSame"], "'CliSame' is the name of 2 job classes; give the full one: a:CliSame, b:CliSame"),
        (["CliGreet"], "missing required field `name`"),
        (["CliGreet", "nam=x"], "CliGreet has no field 'nam'; did you mean 'name'?"),
        (["CliGreet", "name=x", "times=many"], "field 'times': expected `int`, got `str`"),
        (["CliGreet", "name"], "'name' has no '='; give field=value"),
        (["CliGreet", "--json-payload", "[1]"], "give a JSON object"),
        (["CliGreet", "--json-payload", "{"], "it is no JSON"),
        (["CliGreet", "name=x", "--delay=-3"], "'-3' is no duration"),
        (["CliGreet", "name=x", "--delay=3", "--at=2030-01-01"], "--delay and --at exclude each other"),
        (["CliGreet", "name=x", "--id=7"], "job id is '7'; give a UUID"),
        (["CliGreet", "name=x", "--queue=a b"], "queue name is 'a b'"),
        (["CliGreet", "name=x", "--max-attempts=0"], "max_attempts is 0"),
        (["CliGreet", "name=x", "--priority=urgent"], "'urgent' is not one of"),
        (["CliGreet", "name=x", "--tag="], "give at most 32 strings of 1 to 128 characters"),
        (["CliGreet", "name=\udcff"], "the fields of CliGreet are no text that can be sent"),
        (["CliGreet", "--json-payload", '{"name": "\\ud800"}'], "the fields of CliGreet are no text that can be sent"),
        (["CliGreet", f"name={'x' * 2_000_000}"], "the limit (max_payload_bytes) is 1048576"),
    ],
)
def test_bad_dispatches_are_refused_with_nothing_written(cli: Cli, raw: Any, args: list[str], message: str) -> None:
    result = cli("dispatch", *args, "--import", "cli_test_jobs")
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not raw.keys("*:job:*")


def test_a_module_with_a_name_that_is_none(cli: Cli) -> None:
    result = cli("worker", "\udcff")
    assert result.exit_code == 2, result.output
    assert "a module is '\\udcff'; give a text" in result.stderr


def test_a_dispatch_can_be_waited_for(cli: Cli, work_off: Callable[..., None]) -> None:
    result = cli("dispatch", "CliGreet", "name=x", "--wait", "0.05", "--import", "cli_test_jobs")
    assert result.exit_code == 5
    job_id = result.stderr.split()[0]
    assert f"job {job_id} has not ended within 0.05 s; it goes on" in result.stderr
    work_off(job_id)
    assert cli.ok("jobs", "wait", job_id).strip() == '"hello x"'
    assert cli.json("jobs", "wait", job_id) == {"id": job_id, "state": "completed", "result": "hello x", "error": None}


# --- modules -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("no_such_module_x", None, "the module 'no_such_module_x' was not found"),
        ("shop/jobs.py", None, "'shop/jobs.py' is a path; name the module as an import does: shop.jobs"),
        ("cli_broken_1", "import no_such_thing_y", "importing 'cli_broken_1' failed at "),
        ("cli_broken_2", "1 / 0", "cli_broken_2.py:1: ZeroDivisionError: division by zero"),
        ("cli_broken_3", "def (", "SyntaxError"),
        ("cli_broken_4", "raise SystemExit(3)", "SystemExit: 3"),
    ],
)
@pytest.mark.parametrize("command", [["worker"], ["dispatch", "X", "--import"]])
def test_a_module_that_does_not_import_is_named_with_the_cause(
    cli: Cli, command: list[str], name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (cli.folder / f"{name}.py").write_text(text)
    result = cli(*command, name)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in cli(*command, name, "--verbose").stderr


# --- queues, jobs ------------------------------------------------------------------------------------------------


def test_an_empty_server_has_nothing_to_list(cli: Cli) -> None:
    assert cli.ok("queues") == "no queue has ever held a job\n"
    assert cli.ok("jobs", "list") == "no such job\n"
    assert cli.ok("failed", "list") == "no dead letters\n"
    assert cli.ok("workers").startswith("no worker is alive")
    assert cli.json("queues") == {"queues": [], "total": 0}
    assert cli.json("workers") == {"workers": [], "total": 0}


def test_queues_are_listed_and_paused(cli: Cli) -> None:
    cli.dispatch("CliGreet", "name=x")
    cli.dispatch("CliBoom")
    found = cli.json("queues")
    assert [(queue["name"], queue["counts"]["ready"], queue["paused"]) for queue in found["queues"]] == [
        ("boom", 1, False),
        ("mail", 1, False),
    ]
    assert cli.ok("pause", "mail", "boom") == "mail: paused\nboom: paused\n"
    assert cli.ok("pause", "mail") == "mail: was paused already\n"
    assert "paused" in cli.ok("queues")
    assert cli.json("resume", "mail")["queues"] == [{"name": "mail", "changed": True}]
    page = cli("queues", "--limit", "1", "--offset", "1")
    assert "mail" in page.stdout
    assert "boom" not in page.stdout
    assert "2-2 of 2" in page.stderr


def test_a_misspelt_queue_is_not_paused(cli: Cli) -> None:
    cli.dispatch("CliBoom")
    for command in (
        ["pause", "boom", "bom"],
        ["resume", "bom"],
        ["jobs", "list", "--queue", "bom"],
        ["jobs", "clear", "bom", "--yes"],
    ):
        result = cli(*command)
        assert result.exit_code == 4
        assert "no queue 'bom' has ever held a job; known are boom" in result.stderr
    assert not cli.json("queues")["queues"][0]["paused"]
    assert cli.ok("pause", "bom", "--force")


def test_jobs_are_listed_over_queues_and_states_by_pages(cli: Cli) -> None:
    ids = [
        cli.dispatch("CliBoom"),
        cli.dispatch("CliBoom", "--delay", "60"),
        cli.dispatch("CliGreet", "name=x"),
        cli.dispatch("CliGreet", "name=y"),
    ]
    whole = cli.json("jobs", "list")
    assert sorted(job["id"] for job in whole["jobs"]) == sorted(ids)
    assert whole["total"] == 4
    pages = [cli.json("jobs", "list", "--limit", "1", "--offset", str(at))["jobs"] for at in range(5)]
    assert [page[0]["id"] if page else None for page in pages] == [*(job["id"] for job in whole["jobs"]), None]
    assert [job["id"] for job in cli.json("jobs", "list", "--state", "ready", "--queue", "mail")["jobs"]] == ids[2:]
    assert [job["id"] for job in cli.json("jobs", "list", "--state", "scheduled")["jobs"]] == [ids[1]]


def test_payloads_are_hidden_unless_asked_for(cli: Cli, work_off: Callable[..., None]) -> None:
    job_id = cli.dispatch("CliGreet", "name=secretname")
    work_off(job_id)
    for command in (["jobs", "list"], ["jobs", "show", job_id]):
        for form in ([], ["--json"]):
            assert "secretname" not in cli.ok(*command, *form)
            assert "secretname" in cli.ok(*command, *form, "--payload")
    assert "result      kept; --payload shows it" in cli.ok("jobs", "show", job_id)


def test_a_job_is_shown_with_timeline_and_errors(cli: Cli, work_off: Callable[..., None]) -> None:
    job_id = cli.dispatch("CliBoom", "why=\x1b[31mred")
    work_off(job_id)
    text = cli.ok("jobs", "show", job_id)
    assert "attempt 1 failed" in text
    assert "Traceback (most recent call last)" in text
    assert "ValueError: \\x1b[31mred" in text
    assert "\x1b" not in text
    job = cli.json("jobs", "show", job_id)
    assert [moment["event"] for moment in job["timeline"]] == ["dispatched", "started", "dead"]
    assert job["errors"][0]["type"] == "ValueError"


def test_jobs_are_cancelled(cli: Cli) -> None:
    job_id = cli.dispatch("CliBoom")
    assert "cancelled" in cli.ok("jobs", "cancel", job_id, "--reason", "not needed")
    assert cli.json("jobs", "show", job_id)["reason"] == "not needed"
    again = cli("jobs", "cancel", job_id)
    assert again.exit_code == 1
    assert "was over already" in again.stdout
    waited = cli("jobs", "wait", job_id)
    assert waited.exit_code == 1
    assert "ended as cancelled: not needed" in waited.stderr
    assert cli.json("jobs", "wait", job_id, code=1)["state"] == "cancelled"


@pytest.mark.parametrize(
    "command",
    [
        ["jobs", "show"],
        ["jobs", "cancel"],
        ["jobs", "wait"],
        ["failed", "show"],
        ["failed", "retry"],
        ["failed", "forget"],
    ],
)
def test_an_unknown_job_is_not_found(cli: Cli, command: list[str]) -> None:
    missing = str(uuid4())
    result = cli(*command, missing)
    assert result.exit_code == 4
    assert (
        result.stderr
        == f"error: no job {missing} is known; it was never dispatched here, or retention has removed it\n"
    )
    assert cli.json(*command, missing, code=4)["error"]["type"] == "JobNotFound"
    assert cli(*command, "nonsense").exit_code == 2


def test_a_queue_is_cleared_after_a_question(cli: Cli) -> None:
    cli.dispatch("CliGreet", "name=x")
    cli.dispatch("CliGreet", "name=x", "--delay", "60")
    result = cli("jobs", "clear", "mail")
    assert result.exit_code == 2
    assert "Remove 2 waiting jobs from 'mail' for good? There is nobody to ask; add --yes." in " ".join(
        result.stderr.split()
    )
    assert cli.json("jobs", "clear", "mail", "--yes") == {"queue": "mail", "removed": 2}
    assert cli.json("jobs", "list")["total"] == 0


# --- dead letters ------------------------------------------------------------------------------------------------


@pytest.fixture
def letters(cli: Cli, work_off: Callable[..., None]) -> list[str]:
    ids = [
        cli.dispatch("CliBoom", "why=no disk"),
        cli.dispatch("CliBoom", "why=no net", "--tag", "vip"),
        cli.dispatch("CliBoom", "--queue", "mail"),
    ]
    work_off(*ids)
    return ids


def test_dead_letters_are_listed_by_filters(cli: Cli, letters: list[str]) -> None:
    def found(*filters: str) -> list[str]:
        return sorted(job["id"] for job in cli.json("failed", "list", *filters)["jobs"])

    assert found() == sorted(letters)
    assert found("--error", "no net") == found("--tag", "vip") == [letters[1]]
    assert found("--error", "ValueError", "--queue", "boom") == sorted(letters[:2])
    assert found("--class", "CliBoom", "--queue", "mail") == [letters[2]]
    assert found("--class", "CliGreet") == []
    assert "ValueError: no disk" in cli.ok("failed", "list")
    assert cli.json("failed", "list", "--limit", "1")["total"] == 3
    assert "why" not in cli.ok("failed", "list", "--json")
    assert "why" in cli.ok("failed", "list", "--json", "--payload")


def test_dead_letters_are_shown(cli: Cli, letters: list[str]) -> None:
    assert "ValueError: no disk" in cli.ok("failed", "show", letters[0])
    waiting = cli.dispatch("CliBoom")
    result = cli("failed", "show", waiting)
    assert result.exit_code == 1
    assert "is no dead letter: it is ready" in result.stderr


def test_dead_letters_are_retried_and_forgotten_by_id(cli: Cli, letters: list[str]) -> None:
    assert cli.ok("failed", "retry", letters[0]) == f"{letters[0]}: replayed\n"
    result = cli("failed", "retry", letters[0], letters[1])
    assert result.exit_code == 1
    assert result.stdout == f"{letters[0]}: is no dead letter\n{letters[1]}: replayed\n"
    assert cli.json("failed", "forget", letters[2]) == {"jobs": [{"id": letters[2], "forgotten": True}], "count": 1}
    assert cli("jobs", "show", letters[2]).exit_code == 4


def test_many_are_only_touched_after_a_question(cli: Cli, letters: list[str]) -> None:
    for verb in ("retry", "forget"):
        refused = cli("failed", verb, "--queue", "boom")
        assert refused.exit_code == 2
        assert "2 dead letters? There is nobody to ask; add --yes." in " ".join(refused.stderr.split())
        assert cli("failed", verb).exit_code == 2
        assert cli("failed", verb, letters[0], "--all", "--yes").exit_code == 2
        assert cli("failed", verb, "--queue", "bom", "--yes").exit_code == 4
    assert cli("failed", "purge", "--older-than", "1d").exit_code == 2
    assert cli.ok("failed", "retry", "--tag", "vip", "--yes") == "1 replayed\n"
    assert cli.json("failed", "forget", "--all", "--yes") == {"count": 2}
    assert cli("failed", "forget", "--all").exit_code == 1, "nothing to ask about"


def test_old_dead_letters_are_purged(cli: Cli, letters: list[str]) -> None:
    assert cli.ok("failed", "purge", "--older-than", "1h", "--yes") == "0 forgotten\n"
    assert cli.ok("failed", "purge", "--older-than", "0", "--queue", "boom", "--yes") == "2 forgotten\n"
    assert [job["id"] for job in cli.json("failed", "list")["jobs"]] == [letters[2]]


# --- config, errors ----------------------------------------------------------------------------------------------


def test_config_shows_values_origins_and_no_secrets(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RF_JOBS_REDIS_URL", "redis://user:hunter2@127.0.0.1:1/0")
    Path("rf-jobs.toml").write_text("[jobs.worker]\nqueues = {high = 5, low = 1}\n")
    for form in ([], ["--json"]):
        assert "hunter2" not in cli.ok("config", *form)
    shown = cli.json("config", "--set", "--namespace", "mine")
    assert shown["file"].endswith("rf-jobs.toml")
    assert {path: (setting["value"], setting["origin"]) for path, setting in shown["settings"].items()} == {
        "jobs.redis_url": ("redis://user:***@127.0.0.1:1/0", "variable"),
        "jobs.namespace": ("mine", "argument"),
        "jobs.worker.queues": ({"high": 5, "low": 1}, "file"),
    }
    assert set(cli.json("config", "jobs.exporter")["settings"]) == {
        "jobs.exporter.host",
        "jobs.exporter.port",
        "jobs.exporter.cache_seconds",
    }
    unknown = cli("config", "jobs.redis_ulr")
    assert unknown.exit_code == 2
    assert "did you mean 'jobs.redis_url'?" in unknown.stderr


def test_a_misspelt_setting_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.toml").write_text("[jobs]\nredis_ulr = 1\n")
    result = cli("queues", "--config", "mine.toml")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "did you mean 'redis_url'?" in result.stderr
    assert "is missing; name an existing one" in cli("queues", "--config", "none.toml").stderr
    assert "jobs.redis_url is 'http://x'" in cli("queues", "--redis-url", "http://x").stderr
    monkeypatch.setenv("RF_JOBS_REDIS_ULR", "x")
    assert "unknown variable RF_JOBS_REDIS_ULR; did you mean" in cli("queues").stderr


def test_an_unreachable_server_is_one_line_and_exit_3(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rf_jobs.cli.session.RETRY_SECONDS", 0.1)
    monkeypatch.setattr("rf_jobs.cli.commands.doctor.RETRY_SECONDS", 0.1)
    url = "redis://:hunter2@127.0.0.1:1/0"
    for command in (["queues"], ["doctor"], ["dispatch", "CliBoom", "--import", "cli_test_jobs"], ["jobs", "list"]):
        result = cli(*command, "--redis-url", url)
        assert result.exit_code == 3
        assert result.stderr.startswith("error: connect: no answer from the server at redis://:***@127.0.0.1:1/0")
        assert result.stderr.count("\n") == 1
        error = cli.json(*command, "--redis-url", url, code=3)["error"]
        assert (error["type"], error["exit_code"]) == ("BackendError", 3)
    assert "Traceback" in cli("queues", "--redis-url", url, "--verbose").stderr


def test_a_server_that_may_evict_is_refused_unless_allowed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with ephemeral_server(extra_args=["--maxmemory-policy", "allkeys-lru"]) as server:
        monkeypatch.setenv("RF_JOBS_REDIS_URL", server.url)
        refused = cli("queues")
        assert refused.exit_code == 3
        assert "may drop jobs in silence" in refused.stderr
        checks = {check["name"]: check for check in cli.json("doctor", code=1)["checks"]}
        assert checks["eviction"]["status"] == "fail"
        assert cli("dispatch", "CliBoom", "--import", "cli_test_jobs", "--allow-evicting-server").exit_code == 0


def test_usage_errors_are_json_too(cli: Cli) -> None:
    assert cli.json("queues", "--limit", "0", code=2)["error"]["type"] == "UsageError"
    assert cli("nonsense").exit_code == 2


def test_namespaces_are_kept_apart(cli: Cli) -> None:
    cli.dispatch("CliBoom", "--namespace", "one")
    assert cli.json("queues", "--namespace", "one")["total"] == 1
    assert cli.json("queues")["total"] == 0


# --- bench -------------------------------------------------------------------------------------------------------


def test_bench_measures_and_leaves_no_job(cli: Cli, redis_url: str, raw: Any) -> None:
    found = cli.json("bench", "--jobs", "200", "--samples", "5", "--redis-url", redis_url)
    assert found["jobs"] == 420
    assert found["drain_per_second"] > 0
    assert found["latency_p99_ms"] >= found["latency_p50_ms"] > 0
    assert "indicative" in found["note"]
    assert not raw.keys("*:job:*")


def test_bench_uses_no_server_that_was_not_named(cli: Cli, raw: Any) -> None:
    assert "embedded" in cli.ok("bench", "--jobs", "20", "--samples", "1")
    assert not raw.keys("*")


def test_version(cli: Cli) -> None:
    assert cli.ok("--version").startswith("rf-jobs ")
