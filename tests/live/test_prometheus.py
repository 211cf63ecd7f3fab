"""The slice goes all the way to the operator: a real Prometheus, on the committed configuration, against a real exporter and
real workers under load, has an answer to every panel and every rule."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from rf_jobs import QueueManager
from rf_jobs.telemetry.promql import metrics_in
from tests.live.jobs import Fine, Flaky, Hopeless
from tests.support.processes import fetch, free_port, process, rf_jobs, wait_until
from tests.support.programs import program

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
DASHBOARDS = Path(__file__).parents[2] / "grafana" / "dashboards"
VARIABLES = {"$__rate_interval": "1m", "$__range": "5m", "$cluster": ".*", "$queue": ".*", "$job_class": ".*"}
pytestmark = pytest.mark.xdist_group("live")


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


class Prometheus:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: str) -> Any:
        body = fetch(f"{self.url}{path}?{urllib.parse.urlencode(parameters)}")
        return json.loads(body) if body.startswith("{") else {"status": "error", "error": body or "no answer"}

    def ask(self, query: str) -> list[Any]:
        answer = self.get("/api/v1/query", query=query)
        assert answer["status"] == "success", f"{query}: {answer}"
        data = answer["data"]
        return data["result"] if data["resultType"] in ("vector", "matrix") else [data["result"]]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    from tests.support.servers import ephemeral_server

    folder = tmp_path_factory.mktemp("live")
    port, exporter_port = free_port(), free_port()
    configuration = committed("prometheus.yml")
    configuration["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    configuration["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{exporter_port}"]
    del configuration["alerting"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    (folder / "rules.yml").write_text((DEPLOY / "rules.yml").read_text())
    with (
        ephemeral_server() as server,
        process(
            *rf_jobs("worker", "tests.live.jobs", "--queues", "fine,flaky", "--processes", "2", "--redis-url", server.url),
            log=folder / "worker.log", env={"RF_JOBS_TELEMETRY_FLUSH_SECONDS": "1"},
        ),
        process(*rf_jobs("exporter", "--port", str(exporter_port), "--redis-url", server.url), log=folder / "exporter.log"),
        process(
            program("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}", log=folder / "prometheus.log",
        ),
        load(server.url),
    ):  # fmt: skip
        live = Prometheus(port)
        wait_until(
            lambda: live.get("/api/v1/query", query="up == 1").get("data", {}).get("result"), "Prometheus scrapes", 60
        )
        yield live


class load:  # noqa: N801 (reads as a verb where it stands)
    """Dispatches jobs of every fate until it is left."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._end = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join(10)

    async def _run(self) -> None:
        async with QueueManager(self._url) as manager:
            while not self._end.is_set():
                await manager.dispatch_many([*(Fine() for _ in range(20)), Flaky(), Hopeless()])
                await manager.dispatch(Fine()).delay(3600)
                await asyncio.to_thread(self._end.wait, 0.25)


@pytest.mark.timeout(180)
def test_every_panel_and_rule_answers_with_data(prometheus: Prometheus) -> None:
    recordings = [(name, query) for name, query in rules() if ":" in name]
    asked = {f"{name}: {query}": query for name, query in [*panels(), *recordings]}
    silent = set(asked)

    def all_answered() -> bool:
        silent.difference_update([name for name in silent if prometheus.ask(asked[name])])
        return not silent

    try:
        wait_until(all_answered, "data for every panel and recording rule", 90)
    except AssertionError:
        raise AssertionError("no data for:\n" + "\n".join(sorted(silent))) from None


@pytest.mark.timeout(180)
def test_every_alert_can_be_evaluated_and_sees_its_series(prometheus: Prometheus) -> None:
    for name, query in rules():
        if ":" in name:
            continue
        prometheus.ask(query)  # a query that Prometheus refuses fails here
        for series in metrics_in(query):
            wait_until(partial(prometheus.ask, series), f"{name} watches {series}, which has no data", 60)


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
