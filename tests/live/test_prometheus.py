"""The slice goes all the way to the operator: a real Prometheus and a real Alertmanager, on the committed configuration,
against a real exporter and real workers under load, have an answer to every panel and every rule, and it is not 0."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import shutil
import signal
import threading
import urllib.parse
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from rf_jobs import Batch, Job, JobContext, QueueManager, Settings
from rf_jobs.telemetry import telemetry
from rf_jobs.telemetry.promql import metrics_in
from rf_jobs.words.config_settings import JobsSettings, SecuritySettings, TelemetrySettings
from tests.live.jobs import Fine, Flaky, Hopeless, Large, Late
from tests.support.processes import fetch, process, rf_jobs, said, wait_until
from tests.support.programs import program
from tests.support.schedules import rewind
from tests.support.sealed import key

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
ALERTMANAGER = DEPLOY.parent / "alertmanager" / "alertmanager.yml"
DASHBOARDS = Path(__file__).parents[2] / "grafana" / "dashboards"
VARIABLES = {"$__rate_interval": "1m", "$__range": "5m", "$cluster": ".*", "$queue": ".*", "$job_class": ".*"}
SIGNING = key("live")
MAY_BE_ZERO = {
    "rf_ledger_imbalance_jobs": "jobs lost or doubled: anything but 0 is a fault",
    "rf_consequences_unsettled": "they are drawn in a moment",
    "rf_schedule_next_run_timestamp_seconds": "how late it is: not at all, but for moments",
}
"""Expressions on these may say 0 under a load that shows in all others, and why."""
SILENT = {"absent(rf_exporter_last_success_timestamp_seconds)": "it answers when there is nothing else"}


def committed(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return loaded


def rules() -> list[tuple[str, str]]:
    return [
        (rule.get("record") or rule["alert"], rule["expr"])
        for group in committed("rules.yml")["groups"]
        for rule in group["rules"]
    ]


def panels() -> list[tuple[str, str]]:
    found = []
    for path in sorted(DASHBOARDS.glob("*.json")):
        dashboard = json.loads(path.read_text())
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                query = target["expr"]
                for variable, value in VARIABLES.items():
                    query = query.replace(variable, value)
                found.append((f"{dashboard['title']} / {panel['title']} {target['refId']}", query))
    return found


_JOINT = re.compile(r"\b(?:and|or|unless)\b(?:\s+(?:on|ignoring)\s*\([^)]*\))?|(?:==|!=|<=|>=|<|>)(?:\s+bool\b)?")
_SELECTOR = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?:\{[^}]*\})?")


def sides(query: str) -> list[str]:
    """What an alert combines and compares, each without its threshold."""
    depth, found, since, at = 0, [], 0, 0
    while at < len(query):
        joint = None if depth else _JOINT.match(query, at)
        if joint:
            found.append(query[since:at])
            since = at = joint.end()
        else:
            depth += (query[at] in "({[") - (query[at] in ")}]")
            at += 1
    return [side.strip() for side in [*found, query[since:]] if metrics_in(side)]


def selectors(query: str) -> set[str]:
    """Every series that a query selects, with its matchers."""
    names = metrics_in(query)
    return {match[0] for match in _SELECTOR.finditer(query) if match[0].partition("{")[0] in names}


def shows(query: str, answer: list[Any]) -> bool:
    """Whether there is something to see: data, and not only zeros."""
    values = [float(sample["value"][1]) if isinstance(sample, dict) else float(sample[1]) for sample in answer]
    if metrics_in(query) & MAY_BE_ZERO.keys():
        return bool(values)
    return any(value != 0 and math.isfinite(value) for value in values)


class Stranger(Job, queue="fine"):
    """No worker knows it."""

    def handle(self, ctx: JobContext) -> None:
        raise AssertionError("nobody runs it")


class Prometheus:
    def __init__(self, url: str, alerts: str) -> None:
        self.url = url
        self.alerts = alerts

    def get(self, path: str, **parameters: str) -> Any:
        body = fetch(f"{self.url}{path}?{urllib.parse.urlencode(parameters)}")
        return json.loads(body) if body.startswith("{") else {"status": "error", "error": body or "no answer"}

    def ask(self, query: str) -> list[Any]:
        answer = self.get("/api/v1/query", query=query)
        assert answer["status"] == "success", f"{query}: {answer}"
        data = answer["data"]
        return data["result"] if data["resultType"] in ("vector", "matrix") else [data["result"]]


@contextmanager
def exporter(folder: Path, url: str) -> Generator[str]:
    """Its host and port."""
    log = folder / "exporter.log"
    with process(*rf_jobs("exporter", "--port", "0", "--redis-url", url), log=log) as running:
        yield said(running, log, r"metrics of .* on http://(\S+)/metrics")


@contextmanager
def alertmanager(folder: Path) -> Generator[str]:
    """One with the committed configuration; its host and port."""
    command = [
        shutil.which("alertmanager") or program("prometheus-alertmanager"), f"--config.file={ALERTMANAGER}",
        f"--storage.path={folder}/alerts", "--web.listen-address=127.0.0.1:0", "--cluster.listen-address=",
    ]  # fmt: skip
    log = folder / "alertmanager.log"
    with process(*command, log=log) as running:
        yield said(running, log, r"address=(127\.0\.0\.1:[1-9]\d*)")


@contextmanager
def scraper(folder: Path, target: str, worker: str, alerts: str) -> Generator[str]:
    """A Prometheus that reads them, with the committed rules, all of them evaluated each second; its URL."""
    configuration = committed("prometheus.yml")
    configuration["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    configuration["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    configuration["scrape_configs"][1]["static_configs"][0]["targets"] = [worker]
    configuration["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alerts]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    groups = [{**group, "interval": "1s"} for group in committed("rules.yml")["groups"]]
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    command = [
        program("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        "--web.listen-address=127.0.0.1:0", "--rules.alert.resend-delay=1s",
    ]  # fmt: skip
    log = folder / "prometheus.log"
    with process(*command, log=log) as running:
        yield "http://" + said(running, log, r"address=(127\.0\.0\.1:[1-9]\d*)")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    from tests.support.servers import ephemeral_server

    folder = tmp_path_factory.mktemp("live")
    log, payloads = folder / "worker.log", folder / "payloads"
    payloads.mkdir()
    (payloads / ".rf-jobs-payloads").touch()  # it is a payload store, and an empty one
    environment = {
        "RF_JOBS_TELEMETRY_FLUSH_SECONDS": "1",
        "RF_JOBS_SECURITY_SIGNING_KEYS": SIGNING,
        "RF_JOBS_SECURITY_REQUIRE_SIGNATURES": "true",
        "RF_JOBS_OFFLOAD_PATH": str(payloads),
    }
    with (
        ephemeral_server() as server,
        process(
            *rf_jobs(
                "worker", "tests.live.jobs", "--queues", "fine,flaky,late", "--processes", "2", "--scheduler",
                "--http-port", "0", "--redis-url", server.url,
            ),
            log=log, env=environment,
        ) as worker,
        exporter(folder, server.url) as target,
        alertmanager(folder) as alerts,
        scraper(folder, target, said(worker, log, r"metrics and probes of all processes on http://(\S+)"), alerts) as url,
        load(server.url, folder / "elsewhere"),
    ):  # fmt: skip
        live = Prometheus(url, alerts)
        ended = 'rf_supervisor_process_ends_total{reason="crashed"} == 0'
        for query, what in (("up == 1", "Prometheus scrapes"), (ended, "no process has crashed yet")):
            wait_until(lambda: live.get("/api/v1/query", query=query).get("data", {}).get("result"), what, 60)  # noqa: B023
        os.kill(asyncio.run(one_process(server.url)), signal.SIGKILL)
        yield live


async def one_process(url: str) -> int:
    """The pid of a worker process."""
    async with QueueManager(url) as manager:
        return (await manager.workers())[0].pid


class load:  # noqa: N801 (reads as a verb where it stands)
    """Dispatches jobs of every fate until it is left. One queue is paused, and its jobs wait, and with them a batch."""

    def __init__(self, url: str, elsewhere: Path) -> None:
        self._url = url
        self._elsewhere = str(elsewhere)
        self._end = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join(10)

    async def _run(self) -> None:
        wanted = TelemetrySettings(tracing=False, flush_seconds=1)
        jobs = JobsSettings(redis_url=self._url, offload_above_bytes=1_000, offload_path=self._elsewhere)
        settings = Settings(jobs=jobs, telemetry=wanted, security=SecuritySettings(signing_keys=(SIGNING,)))
        async with (
            QueueManager(settings) as manager,
            telemetry(manager, wanted),
            QueueManager(self._url) as forger,
        ):
            await manager.pause("late")
            await Batch([Late(), Late()]).dispatch(manager)
            await manager.dispatch(Stranger())
            await manager.schedules.upsert("often", Fine(), every=0.5)
            await manager.schedules.upsert("left-out", Fine(), every=60, misfire="skip")
            await forger.store.client.rpush(forger.store.keys.of("outbox"), '["nonsense"]')
            while not self._end.is_set():
                await manager.dispatch_many(
                    [*(Fine() for _ in range(20)), Flaky(), Hopeless(), Large(text="x" * 2_000)]
                )
                await manager.dispatch(Fine()).delay(3600)
                await manager.dispatch(Late())
                await forger.dispatch(Fine())
                await rewind(manager, "left-out", 5)
                await asyncio.to_thread(self._end.wait, 0.25)


def wait_for_all(prometheus: Prometheus, asked: dict[str, str]) -> None:
    """Until each query, by the name under which a failure tells of it, has shown something."""
    silent = set(asked)

    def all_shown() -> bool:
        silent.difference_update([name for name in silent if shows(asked[name], prometheus.ask(asked[name]))])
        return not silent

    try:
        wait_until(all_shown, "something to see for every query", 90)
    except AssertionError:
        raise AssertionError("nothing, or only 0, for:\n" + "\n".join(sorted(silent))) from None


@pytest.mark.timeout(180)
def test_every_panel_and_recording_shows_the_load(prometheus: Prometheus) -> None:
    recordings = [(name, query) for name, query in rules() if ":" in name]
    assert recordings
    wait_for_all(prometheus, {f"{name}: {query}": query for name, query in [*panels(), *recordings]})


@pytest.mark.timeout(180)
def test_every_side_of_every_alert_sees_the_load(prometheus: Prometheus) -> None:
    """Whether it fires is promtool's to test; here, that what it watches is there, under the labels that it asks for."""
    alerts = [(name, query) for name, query in rules() if ":" not in name]
    assert alerts
    for _, query in alerts:
        prometheus.ask(query)  # a query that Prometheus refuses fails here
    wait_for_all(
        prometheus,
        {f"{name}: {side}": side for name, query in alerts for side in sides(query) if side not in SILENT},
    )


@pytest.mark.timeout(180)
def test_every_selector_of_every_rule_finds_series(prometheus: Prometheus) -> None:
    wait_for_all(prometheus, {f"{name}: {each}": each for name, query in rules() for each in selectors(query)})
    misspelt = 'queue_events_total{event="startd"}'
    assert not shows(misspelt, prometheus.ask(misspelt))


def test_queries_are_taken_apart() -> None:
    query = (
        'max by (queue) (a{b="> and"}) > 0 and sum by (x) (increase(queue_events_total{event="started"}[10m])) == 0'
        " unless on (cluster, queue) queue_paused == 1 or time() - c > bool (14 * 2)"
    )
    assert sides(query) == [
        'max by (queue) (a{b="> and"})', 'sum by (x) (increase(queue_events_total{event="started"}[10m]))',
        "queue_paused", "time() - c",
    ]  # fmt: skip
    assert selectors(query) == {'a{b="> and"}', 'queue_events_total{event="started"}', "queue_paused", "c"}


@pytest.mark.timeout(180)
def test_alerts_reach_their_receivers(prometheus: Prometheus) -> None:
    def received() -> dict[tuple[str, str], list[str]]:
        alerts = json.loads(fetch(f"http://{prometheus.alerts}/api/v2/alerts") or "[]")
        return {
            (each["labels"]["alertname"], each["labels"].get("queue", "")): [r["name"] for r in each["receivers"]]
            for each in alerts
        }

    wanted = {
        ("RFJobsWatchdog", ""): ["heartbeat"], ("RFJobsDeadLetterGrowing", "flaky"): ["ticket"],
        ("RFJobsForged", "fine"): ["page"], ("RFJobsUnopened", "fine"): ["ticket"],
    }  # fmt: skip
    wait_until(lambda: wanted.items() <= received().items(), f"Alertmanager has {wanted}", 90)


@pytest.mark.timeout(180)
def test_the_heartbeats_of_a_supervisor_are_measured(prometheus: Prometheus) -> None:
    wait_for_all(prometheus, {"extend": 'rf_redis_op_duration_seconds_count{op="extend"}'})


@pytest.mark.timeout(180)
def test_prometheus_evaluates_the_rules_itself(prometheus: Prometheus) -> None:
    def healthy() -> bool:
        groups = prometheus.get("/api/v1/rules").get("data", {}).get("groups", [])
        found = [rule["health"] for group in groups for rule in group["rules"]]
        return bool(found) and set(found) == {"ok"}

    wait_until(healthy, "all rules healthy", 60)


@pytest.mark.timeout(180)
def test_the_conservation_law_holds_under_load(prometheus: Prometheus) -> None:
    wait_until(lambda: prometheus.ask("rf_ledger_imbalance_jobs"), "the imbalance is exported", 60)
    assert {value["value"][1] for value in prometheus.ask("rf_ledger_imbalance_jobs")} == {"0"}
    assert not re.search("nan", str(prometheus.ask("queue_depth")), re.IGNORECASE)
