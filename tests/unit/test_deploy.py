from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import yaml

from deploy.files import ROOT
from deploy.rules import configuration, shown_by_the_exporter
from deploy.settings import WORKER_JOB, Settings
from rf_jobs.telemetry.names import BUILD_INFO, METRICS
from rf_jobs.telemetry.rules.objectives import JOB
from rf_jobs.words.config_keys import VARIABLES
from tests.support.programs import program

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+(-[\w.-]+)?$")

each_service = pytest.mark.parametrize("name", SERVICES)


def instructions(name: str) -> list[str]:
    """The Dockerfile's instructions of one kind, continued lines joined."""
    lines = re.sub(r"\\\n\s*", " ", DOCKERFILE).splitlines()
    return [line.removeprefix(name).strip() for line in lines if line.startswith(name + " ")]


def environment(service: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = service.get("environment", {})
    return found


def test_everything_an_operator_needs_is_there() -> None:
    assert set(SERVICES) == {"redis", "worker", "exporter", "prometheus", "alertmanager", "grafana", "otel-collector"}


@each_service
def test_images_are_pinned(name: str) -> None:
    assert PINNED.match(SERVICES[name]["image"])


@pytest.mark.parametrize("image", ["redis:latest", "redis", "redis:8", "grafana/grafana:12.4"])
def test_an_image_that_is_not_pinned_would_be_found(image: str) -> None:
    assert not PINNED.match(image)


@each_service
def test_what_is_mounted_exists(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source, target, *_ = volume.split(":")
        assert target.startswith("/")
        if source.startswith("."):
            assert (ROOT / source).exists(), f"{source} is mounted and does not exist"
            assert volume.endswith(":ro"), f"{source} is the project's: mount it read-only"
        else:
            assert source in COMPOSE["volumes"]


@each_service
def test_what_a_command_names_is_mounted(name: str) -> None:
    mounts = [volume.split(":")[:2] for volume in SERVICES[name].get("volumes", []) if volume.startswith("./")]
    for word in SERVICES[name].get("command", []):
        path = word.split("=")[-1]
        if path.endswith((".yml", ".yaml", ".conf")):
            inside = [ROOT / source / os.path.relpath(path, target) for source, target in mounts]
            assert any(each.is_file() or Path(str(each).removesuffix("/.")).is_file() for each in inside), path


@each_service
def test_nothing_is_published_beyond_this_machine(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", ["worker", "exporter"])
def test_our_variables_are_settings(name: str) -> None:
    ours = {variable for variable in environment(SERVICES[name]) if variable.startswith("RF_JOBS_")}
    assert {"RF_JOBS_REDIS_URL", "RF_JOBS_TELEMETRY_OTLP_ENDPOINT"} <= ours <= VARIABLES.keys()
    assert SERVICES[name]["init"] is True


def test_the_image_sets_only_known_variables() -> None:
    assert set(re.findall(r"\bRF_JOBS_\w+", DOCKERFILE)) <= VARIABLES.keys()


def test_a_worker_gets_longer_to_stop_than_it_waits_itself() -> None:
    grace = int(SERVICES["worker"]["stop_grace_period"].removesuffix("s"))
    wait = VARIABLES["RF_JOBS_WORKER_SHUTDOWN_TIMEOUT_SECONDS"].default
    assert isinstance(wait, float)
    assert grace > wait + 10


def test_the_services_know_each_other_by_name() -> None:
    settings = Settings()
    for address in (settings.exporter, settings.alertmanager, settings.worker):
        assert address.split(":")[0] in SERVICES
    for name in ("worker", "exporter"):
        hosts = re.findall(r"\w+://([\w-]+):\d+", " ".join(environment(SERVICES[name]).values()))
        assert set(hosts) - {"127"} <= SERVICES.keys()
    assert environment(SERVICES["grafana"])["PROMETHEUS_URL"] == "http://prometheus:9090"


def test_grafana_is_given_every_variable_of_its_provisioning() -> None:
    provisioning = "".join(path.read_text() for path in (ROOT / "grafana/provisioning").rglob("*.yaml"))
    asked = set(re.findall(r"(?<!\$)\$\{(\w+)\}", provisioning))
    assert asked == {"PROMETHEUS_URL", "TEMPO_URL", "LOKI_URL"}
    assert asked <= environment(SERVICES["grafana"]).keys()


def test_prometheus_scrapes_exporter_and_worker_and_names_the_cluster() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    assert [scrape["job_name"] for scrape in config["scrape_configs"]] == [JOB, WORKER_JOB]
    ports = [VARIABLES["RF_JOBS_EXPORTER_PORT"].default, re.findall(r"RF_JOBS_WORKER_HTTP_PORT=(\d+)", DOCKERFILE)[0]]
    for scrape, name, port in zip(config["scrape_configs"], ("exporter", "worker"), ports, strict=True):
        [target] = scrape["static_configs"]
        assert target["targets"] == [f"{name}:{port}"]
        assert target["labels"] == {"cluster": "default"}
    assert "RF_JOBS_WORKER_HTTP_HOST=0.0.0.0" in DOCKERFILE
    assert config["rule_files"] == ["rules.yml"]


def test_nothing_is_kept_twice_of_what_exporter_and_worker_both_have() -> None:
    [relabel] = configuration(Settings())["scrape_configs"][1]["metric_relabel_configs"]
    assert relabel["action"] == "drop"
    for metric in METRICS:
        for name in metric.series:
            dropped = re.fullmatch(relabel["regex"], name) is not None
            assert dropped == (metric.source in ("worker", "dispatcher", "scheduler") or metric is BUILD_INFO), name
    for name in ("process_resident_memory_bytes", "shop_jobs_failed_total", "rf_supervisor_processes"):
        assert not re.fullmatch(relabel["regex"], name)
    assert "shop_jobs_failed_total" in shown_by_the_exporter("shop").split("|")


def test_prometheus_keeps_exemplars_and_the_error_budgets_month() -> None:
    command = SERVICES["prometheus"]["command"]
    assert "--enable-feature=exemplar-storage" in command
    [kept] = [int(word.split("=")[1].removesuffix("d")) for word in command if "retention.time" in word]
    assert kept > 30


def test_the_image_is_built_in_stages_pinned_and_runs_as_nobody_in_particular() -> None:
    stages = [stage.split() for stage in instructions("FROM")]
    assert len(stages) == 2
    assert all(PINNED.match(stage[0]) for stage in stages)
    assert instructions("USER") == ["10001:10001"]
    assert len(instructions("HEALTHCHECK")) == 1
    assert instructions("ENTRYPOINT") == ['["rf-jobs"]']
    assert DOCKERFILE.rindex("USER ") > DOCKERFILE.rindex("FROM ")


def test_what_the_image_copies_exists_and_is_sent_to_the_builder() -> None:
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    for copy in instructions("COPY"):
        if copy.startswith("--from="):
            continue
        for source in copy.split()[:-1]:
            assert f"!{source.removeprefix('./')}" in ignored
            assert (ROOT / source).exists(), f"{source} is copied and does not exist"


def test_the_health_check_is_python_that_fails_when_nobody_answers() -> None:
    [check] = instructions("HEALTHCHECK")
    command: list[str] = yaml.safe_load(check[check.index("CMD") + 3 :])
    result = subprocess.run(
        [sys.executable, *command[1:]],
        env={**os.environ, "HEALTH_URL": "http://127.0.0.1:9/healthz"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode != 0
    assert "refused" in result.stderr


def test_every_service_is_watched_by_something_that_its_image_has() -> None:
    ours = {name for name, service in SERVICES.items() if service["image"].startswith("rf-jobs:")}
    watched = {name: service["healthcheck"]["test"] for name, service in SERVICES.items() if "healthcheck" in service}
    assert watched.keys() == SERVICES.keys() - ours - {"otel-collector"}, (
        "the collector's image holds no program to ask"
    )
    for name in ("prometheus", "alertmanager", "grafana"):
        word, program, *_, url = watched[name]
        assert (word, program) == ("CMD", "wget"), "busybox has it, curl is not in all of these images"
        [port] = [published.split(":")[-1] for published in SERVICES[name]["ports"]]
        assert urlsplit(url).netloc == f"127.0.0.1:{port}"


def test_a_worker_is_healthy_while_it_makes_progress() -> None:
    [variables] = instructions("ENV")[-1:]
    port = re.search(r"RF_JOBS_WORKER_HTTP_PORT=(\d+)", variables)
    assert port is not None
    assert f"HEALTH_URL=http://127.0.0.1:{port[1]}/readyz" in variables
    assert "HEALTH_URL" not in environment(SERVICES["worker"])


def test_the_collectors_pipelines_use_what_is_defined() -> None:
    config = yaml.safe_load((ROOT / "deploy/otel-collector/config.yaml").read_text())
    for pipeline in config["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= config[kind].keys()
    assert set(config["service"]["extensions"]) <= config["extensions"].keys()
    endpoint = environment(SERVICES["worker"])["RF_JOBS_TELEMETRY_OTLP_ENDPOINT"]
    assert config["receivers"]["otlp"]["protocols"]["http"]["endpoint"].split(":")[1] == endpoint.split(":")[2]


def test_a_real_server_starts_with_the_settings(tmp_path: Path) -> None:
    socket = tmp_path / "s"
    command = [
        program("redis-server"),
        str(ROOT / "deploy/redis/redis.conf"),
        "--port",
        "0",
        "--unixsocket",
        str(socket),
    ]
    with subprocess.Popen([*command, "--dir", str(tmp_path)], stdout=subprocess.PIPE, text=True) as server:
        try:
            with redis.Redis(unix_socket_path=str(socket), decode_responses=True) as client:
                _wait_for(client, server)
                asked: Any = client.config_get("maxmemory-policy", "appendonly", "appendfsync")
        finally:
            server.terminate()
            server.wait(10)
    assert asked == {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec"}


def _wait_for(client: redis.Redis, server: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            client.ping()
            return
        except redis.ConnectionError:
            assert server.poll() is None, server.stdout.read() if server.stdout else ""
            assert time.monotonic() < deadline, "the server did not answer in 10 s"
            time.sleep(0.02)  # there is no event to wait for: the socket appears when the server is ready
