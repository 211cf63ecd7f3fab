"""Rules and dashboards from the command line: with this installation's settings, as Prometheus and Grafana read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from deploy.files import ROOT
from rf_jobs.cli.app import app
from rf_jobs.telemetry.rules.yaml_text import yaml_text
from tests.support.programs import run


def cli(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def ok(*args: str | Path) -> str:
    result = cli(*args)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but those of the test, and no server: none is needed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RF_JOBS_REDIS_URL", "redis://127.0.0.1:1/0")


def test_the_rules_of_the_defaults_are_those_that_are_tested() -> None:
    committed = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())
    assert yaml.safe_load(ok("rules", "export")) == committed
    assert json.loads(ok("rules", "export", "--json")) == committed


@pytest.mark.prometheus
def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rf-jobs.toml").write_text('[jobs.telemetry]\nmetric_namespace = "acme"\n')
    links = ["--grafana-url", "https://grafana.example/", "--runbook-url", "https://wiki.example/it's"]
    told = ok("rules", "export", "--out", "rules.yml", "--success-objective", "0.99", *links)
    text = (tmp_path / "rules.yml").read_text()
    every: list[dict[str, Any]] = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    alerts = [rule for rule in every if "alert" in rule]
    assert told == f"rules.yml: {len(every) - len(alerts)} recording rules, {len(alerts)} alerts\n"
    checked = run("promtool", "check", "rules", tmp_path / "rules.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"SUCCESS: {len(every)} rules found" in checked.stdout
    burn = next(rule for rule in alerts if rule["labels"].get("window") == "1h/5m")
    assert burn["expr"].startswith("queue:acme_jobs_errors:ratio_rate1h > (14.4 * 0.01) and ")
    assert "the objective allows 1%" in burn["annotations"]["description"]
    assert burn["annotations"]["runbook_url"] == "https://wiki.example/it's/RFJobsErrorBudgetBurn.md"
    assert burn["annotations"]["dashboard_url"].startswith("https://grafana.example/d/rfjobs-overview?")


def test_an_option_comes_before_the_file_and_a_summary_is_json_too(tmp_path: Path) -> None:
    (tmp_path / "rf-jobs.toml").write_text('[jobs.telemetry]\nmetric_namespace = "acme"\n')
    told = json.loads(ok("rules", "export", "--metric-namespace", "rf", "--out", "r.yml", "--json"))
    assert (told["file"], told["recording_rules"] > 5, told["alerts"] > 5) == ("r.yml", True, True)
    assert "rf_jobs_processed_total" in (tmp_path / "r.yml").read_text()
    assert "acme" not in (tmp_path / "r.yml").read_text()


@pytest.mark.parametrize(
    "value",
    [
        "yes", "None", "1m", "1.0", "- a", "a: b", "#no", "it's", 'say "so"', "{{ $value }}", "two\nlines", "\x07",
        "", " ", "~", "é", "queue:jobs:rate5m", "a:", 1, 0.5, True, None, [], {}, ["a", ["b", {"c": "d"}], {}], {"on": {"x": []}},
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_written_as_yaml_is_read_as_it_was(value: object) -> None:
    content = {"groups": [{"name": value, "rules": [value, {"expr": value}]}]}
    assert yaml.safe_load(yaml_text(content)) == content


@pytest.mark.parametrize("namespace", ["", "acme"])
def test_the_dashboards_are_those_that_are_tested(namespace: str, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    names = ["--metric-namespace", namespace] if namespace else []
    told = json.loads(ok("grafana", "export", "--out", "here", *names, "--json"))["dashboards"]
    committed = sorted((ROOT / "grafana/dashboards").glob("*.json"))
    assert sorted(each["file"] for each in told) == [f"here/{path.name}" for path in committed]
    for path in committed:
        made = (tmp_path / "here" / path.name).read_text()
        assert (made == path.read_text()) is (namespace == "")
        assert ("acme_queue_depth" in made) is (namespace == "acme")
    assert ok("grafana", "export", "--out", "here").startswith("here/rfjobs-overview.json: RF Jobs / Overview\n")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["rules", "export", "--out", "nowhere/r.yml"], "there is no folder 'nowhere' for 'r.yml'; make it first"),
        (["rules", "export", "--out", "."], "'.' cannot be written (Is a directory)"),
        (["rules", "export", "--success-objective", "1"], "1.0 is not in the range 0<x<1"),
        (["rules", "export", "--success-objective", "99%"], "'99%' is not a valid float"),
        (["rules", "export", "--grafana-url", "grafana"], "--grafana-url is 'grafana'; give an address such as"),
        (["rules", "export", "--runbook-url", "https://x/{{ $value }}"], "--runbook-url is 'https://x/{{ $value }}'"),
        (["rules", "export", "--metric-namespace", "9-9"], "metric_namespace"),
        (["grafana", "export", "--out", "nowhere"], "'nowhere' does not exist; make the folder first"),
        (["grafana", "export", "--out", "file"], "'file' is no folder"),
        (["grafana", "export"], "Missing option '--out'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_said(args: list[str], says: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = cli(*args)
    assert (result.exit_code, says in result.stderr) == (2, True), result.output
    assert json.loads(cli(*args, "--json").stdout)["error"]["exit_code"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"], "nothing was written"
