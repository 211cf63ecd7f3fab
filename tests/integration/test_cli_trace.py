"""``rf-jobs trace`` says what the spans say, from the store alone."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Coroutine
from typing import Any
from uuid import uuid4

import pytest
import redis
from click.testing import CliRunner, Result
from opentelemetry.sdk.trace import ReadableSpan

from rf_jobs import Batch, QueueManager, Settings
from rf_jobs.cli.app import app
from rf_jobs.model import events as ev
from rf_jobs.words.config_settings import JobsSettings
from tests.support.tracing import At, Lab, Traced, attribute, conversation, lab, linked


class Cli:
    """Runs ``rf-jobs trace``."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, job_id: object, *args: str) -> Result:
        return CliRunner().invoke(app, ["trace", str(job_id), "--redis-url", self.url, *args])

    def json(self, job_id: object, *args: str, code: int = 0) -> Any:
        result = self(job_id, *args, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)


@pytest.fixture
def cli(redis_url: str) -> Cli:
    return Cli(redis_url)


def spot(span: ReadableSpan, *, recorded: bool = True) -> dict[str, Any]:
    assert span.context is not None
    ids = {"trace_id": f"{span.context.trace_id:032x}", "span_id": f"{span.context.span_id:016x}"}
    return {**ids, "recorded": recorded}


def of(it: Lab, job_id: object, name: str) -> list[ReadableSpan]:
    return [span for span in it.spans(f"{name} traced") if attribute(span, "messaging.message.id") == str(job_id)]


def done(work: Coroutine[Any, Any, tuple[str, Lab]]) -> tuple[str, Lab]:
    return asyncio.run(work)


async def ran(url: str, do: str, *kinds: type[ev.Event], ratio: float = 1.0, **options: Any) -> tuple[str, Lab]:
    """A job that has ended, and its spans."""
    async with lab(url, ratio=ratio, **options) as it:
        job_id = await it.manager.dispatch(Traced(do=do))
        for kind in kinds or (ev.JobCompleted,):
            await it.until(kind)
    return str(job_id), it


@pytest.mark.parametrize("mode", ["auto", "link", "child"])
@pytest.mark.parametrize(
    ("do", "kinds", "outcomes"),
    [
        ("", (ev.JobCompleted,), ["completed"]),
        ("fail once", (ev.JobCompleted,), ["retried", "completed"]),
        ("fail", (ev.JobDied,), ["retried", "dead"]),
        ("ask for another try", (ev.JobCompleted,), ["retried", "completed"]),
        ("give up", (ev.JobDiscarded,), ["cancelled"]),
    ],
)
def test_the_ids_are_those_of_the_spans(
    cli: Cli, do: str, kinds: tuple[type[ev.Event], ...], outcomes: list[str], mode: str
) -> None:
    job_id, it = done(ran(cli.url, do, *kinds, trace=mode))
    (send,), attempts = of(it, job_id, "send"), of(it, job_id, "process")
    told = cli.json(job_id, "--sample-ratio", "1", "--trace", mode)
    assert told["dispatch"] == spot(send)
    assert [(a["attempt"], a["outcome"], a["span"]) for a in told["attempts"]] == [
        (number, outcome, spot(span)) for number, (outcome, span) in enumerate(zip(outcomes, attempts, strict=True), 1)
    ]
    assert all(a["started_at"] <= a["ended_at"] for a in told["attempts"])
    assert (told["id"], told["traced"], told["recorded"], told["advice"]) == (job_id, True, True, None)
    assert [a["derived"] for a in told["attempts"]] == [outcome == "completed" for outcome in outcomes]


def test_a_failure_that_was_not_sampled_is_there_and_what_was_left_out_is_said_to_be(cli: Cli) -> None:
    job_id, it = done(ran(cli.url, "fail once", ratio=0.0))
    (process,) = of(it, job_id, "process")
    told = cli.json(job_id, "--sample-ratio", "0")
    assert [a["span"]["recorded"] for a in told["attempts"]] == [True, False]
    assert told["attempts"][0]["span"] == spot(process)
    assert told["attempts"][0]["error"] == {"type": "ValueError", "message": "card 4111"}
    assert told["dispatch"]["recorded"] is False
    plain, _ = done(ran(cli.url, "", ratio=0.0))
    left_out = cli(plain, "--sample-ratio", "0")
    assert left_out.exit_code == 0
    assert "no span of it has been recorded" in left_out.stdout
    assert "sample_ratio in [jobs.telemetry] (here 0); 1 records all" in left_out.stdout


def test_a_tree_for_people(cli: Cli) -> None:
    job_id, it = done(ran(cli.url, "fail once"))
    (send,), (first, second) = of(it, job_id, "send"), of(it, job_id, "process")
    shown = cli(job_id, "--sample-ratio", "1").stdout.splitlines()
    assert shown[0] == f"Traced {job_id} in traced is completed"
    assert re.fullmatch(r"dispatched \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(.* ago\)", shown[1])

    def line(span: ReadableSpan) -> str:
        return "trace {trace_id}, span {span_id}".format(**spot(span))

    assert shown[2] == f"│  {line(send)}"
    assert re.fullmatch(r"├─ attempt 1, started .*: retried after .*: ValueError: card 4111", shown[3])
    assert shown[4] == f"│    {line(first)}, in the dispatch's trace"
    assert re.fullmatch(r"└─ attempt 2, started .*: completed after .* ?m?s", shown[5])
    assert shown[6] == f"     {line(second)}, a trace of its own"
    assert shown[-1] == f'all its spans: {{ span.messaging.message.id = "{job_id}" }} in TraceQL'


def test_a_job_that_waits_or_was_put_off(cli: Cli) -> None:
    async def waits() -> str:
        async with lab(cli.url, worker=False) as it:
            return str(await it.manager.dispatch(Traced()).delay(60))

    shown = cli(asyncio.run(waits()))
    assert shown.exit_code == 0
    assert "└─ no attempt yet" in shown.stdout
    job_id, it = done(ran(cli.url, "put off"))
    told = cli.json(job_id, "--sample-ratio", "1")
    assert [(a["attempt"], a["outcome"]) for a in told["attempts"]] == [(1, "snoozed"), (1, "completed")]
    assert told["attempts"][1]["span"] == spot(of(it, job_id, "process")[1])
    assert "the ids of its span are not kept" in cli(job_id).stdout


def test_an_attempt_that_was_lost_with_its_worker(cli: Cli) -> None:
    async def lose() -> str:
        async with lab(cli.url, worker=False) as it:
            job_id = await it.manager.dispatch(Traced())
            assert await it.manager.pop_batch("traced", 1, lease=1)
            return str(job_id)

    async def take_back() -> tuple[ReadableSpan, ReadableSpan]:
        async with lab(cli.url) as it:
            await it.until(ev.JobCompleted)
            return await it.span("reclaim traced"), await it.span("process traced")

    job_id = asyncio.run(lose())
    reclaim, process = asyncio.run(take_back())
    told = cli.json(job_id, "--sample-ratio", "1")
    lost, runs = told["attempts"]
    assert (lost["outcome"], lost["derived"], lost["span"]["recorded"]) == ("reclaimed", True, False)
    assert At(int(lost["span"]["trace_id"], 16), int(lost["span"]["span_id"], 16)) == linked(reclaim)["lost_attempt"]
    assert (runs["outcome"], runs["attempt"], runs["span"]) == ("completed", 1, spot(process)), (
        "a crash costs no attempt"
    )


def test_jobs_of_a_batch_share_a_conversation(cli: Cli) -> None:
    async def send() -> tuple[str, str, Lab]:
        async with lab(cli.url) as it:
            batch = await it.manager.send_group(Batch([Traced(), Traced()]))
            first: ev.JobCompleted = await it.until(ev.JobCompleted)
            await it.many("process traced", 2)
            return str(batch), first.job_id, it

    batch, job_id, it = asyncio.run(send())
    told = cli.json(job_id)
    assert (told["batch"], told["conversation"]) == (batch, conversation(of(it, job_id, "process")[0]))
    shown = cli(job_id).stdout
    assert f"batch {batch}: rf-jobs batches show {batch}" in shown
    assert f"conversation {told['conversation']}: all jobs of its workflow have it" in shown


def test_a_job_that_was_not_traced(cli: Cli) -> None:
    async def send() -> str:
        async with QueueManager(cli.url) as manager:
            return str(await manager.dispatch(Traced()))

    job_id = asyncio.run(send())
    result = cli(job_id)
    assert result.exit_code == 1
    assert "│  not traced" in result.stdout
    assert "this job was not traced" in result.stdout
    assert "tracing = true in [jobs.telemetry] (RF_JOBS_TELEMETRY_TRACING=true) for workers" in result.stdout
    told = cli.json(job_id, code=1)
    assert (told["traced"], told["dispatch"], told["attempts"]) == (False, None, [])
    assert "`async with telemetry(manager)`" in told["advice"]


def test_where_tracing_is_off_here_that_is_said_and_nothing_derived(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id, _ = done(ran(cli.url, "fail once"))
    monkeypatch.setenv("RF_JOBS_TELEMETRY_TRACING", "false")
    told = cli.json(job_id)
    assert [a["span"] is not None for a in told["attempts"]] == [True, False], "what was written down is shown"

    async def send() -> str:
        async with QueueManager(cli.url) as manager:
            return str(await manager.dispatch(Traced()))

    assert "(RF_JOBS_TELEMETRY_TRACING=true) (here it is off)" in cli(asyncio.run(send())).stdout


def test_jobs_of_all_shards(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RF_JOBS_SHARDS", "4")
    sharded = {"shards": 4, "queue_shards": {"traced": 3}}
    job_id, it = done(ran(cli.url, "fail once", jobs=sharded))
    told = cli.json(job_id, "--sample-ratio", "1")
    assert [a["span"] for a in told["attempts"]] == [spot(span) for span in of(it, job_id, "process")]


def test_a_damaged_envelope_hides_no_attempt(cli: Cli) -> None:
    job_id, it = done(ran(cli.url, "fail once"))
    with redis.Redis.from_url(cli.url) as raw:
        (key,) = raw.keys(f"*job:{job_id}")
        raw.set(key, b"\xff{", keepttl=True)
    told = cli.json(job_id, "--sample-ratio", "1")
    assert told["dispatch"] is None
    assert told["attempts"][0]["span"] == spot(of(it, job_id, "process")[0])


def test_an_attempt_whose_error_is_gone_is_known_as_the_one_before(cli: Cli) -> None:
    job_id, it = done(ran(cli.url, "fail once"))
    with redis.Redis.from_url(cli.url) as raw:
        assert raw.delete(*raw.keys(f"*errors:{job_id}")) == 1
    told = cli.json(job_id, "--sample-ratio", "1")
    assert [a["span"] for a in told["attempts"]] == [spot(span) for span in of(it, job_id, "process")]
    assert [a["error"] for a in told["attempts"]] == [None, None]


@pytest.mark.parametrize(
    ("job_id", "code", "says"),
    [
        (str(uuid4()), 4, "is known; it was never dispatched here, or retention has removed it"),
        ("abc", 2, "job id is 'abc'; give a UUID"),
        ("\x1b[2J", 2, "give a UUID"),
    ],
    ids=["unknown", "no UUID", "not even text"],
)
def test_bad_ids(cli: Cli, job_id: str, code: int, says: str) -> None:
    result = cli(job_id)
    assert (result.exit_code, result.stdout) == (code, "")
    assert says in result.stderr
    assert "\x1b" not in result.stderr
    assert cli.json(job_id, code=code)["error"]["exit_code"] == code


def test_no_server() -> None:
    settings = Settings(jobs=JobsSettings(redis_url="redis://127.0.0.1:1/0"))
    assert Cli(settings.jobs.redis_url)(uuid4()).exit_code == 3
