from __future__ import annotations

import re
from math import inf
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from deploy import generate
from deploy.files import ROOT, write
from deploy.rule_case import Fired
from deploy.settings import Settings
from rf_jobs.telemetry.exposition import MetricsCollector, Reading, render
from rf_jobs.telemetry.names import BY_SERIES, METRICS, Metric
from rf_jobs.telemetry.promql import metrics_in
from rf_jobs.telemetry.rules.recording import RECORDED
from tests.support.commands import check_command
from tests.support.programs import run

pytestmark = pytest.mark.prometheus

PROMETHEUS = ROOT / "deploy/prometheus"
ALERTMANAGER = ROOT / "deploy/alertmanager/alertmanager.yml"
RUNBOOKS = ROOT / "docs/runbooks"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})


def passes(name: str, *arguments: str | Path, cwd: Path | None = None) -> str:
    result = run(name, *arguments, cwd=cwd)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    return output


def test_promtool_checks_rules_and_configuration() -> None:
    assert f"SUCCESS: {len(RULES)} rules found" in passes("promtool", "check", "rules", "rules.yml", cwd=PROMETHEUS)
    passes("promtool", "check", "config", "prometheus.yml", cwd=PROMETHEUS)


def test_promtool_finds_nothing_to_say_about_the_exposition() -> None:
    def one(metric: Metric) -> Reading:
        buckets = dict.fromkeys((*(metric.buckets or ()), inf), 1.0) if metric.kind == "histogram" else {}
        return Reading(metric, tuple("x" for _ in metric.labels), 1.0, buckets)

    body, _ = render(MetricsCollector(lambda: [one(metric) for metric in METRICS]))
    result = run("promtool", "check", "metrics", stdin=body.decode())
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_each_alert_fires_and_does_not() -> None:
    passes("promtool", "test", "rules", "tests.yml", cwd=PROMETHEUS)


@pytest.mark.parametrize("namespace", ["rf", "acme"])
def test_rules_hold_under_a_namespace(namespace: str, tmp_path: Path) -> None:
    write(generate.files(namespace), tmp_path)
    passes("promtool", "test", "rules", "tests.yml", cwd=tmp_path / "deploy/prometheus")
    assert f"{namespace}_jobs_processed_total" in (tmp_path / "deploy/prometheus/rules.yml").read_text()


@pytest.mark.parametrize(
    ("broken", "by"),
    [
        (" unless on (cluster, queue) queue_paused == 1", ""),
        ("> (14.4 * 0.005)", "> (0.0001 * 0.005)"),
        ("rf_ledger_imbalance_jobs > 0", "rf_ledger_imbalance_jobs > 1"),
        ('queue_depth{state="parked"}', 'queue_depth{state="ready"}'),
        (' and sum by (cluster, queue) (increase(queue_events_total{event="dead"}[15m])) > 0', ""),
        ('or 0 * sum by (cluster, queue) (jobs_failed_total{reason="forged"})', ""),
        ('jobs_failed_total{reason="unopened"}', 'jobs_failed_total{reason=~".*"}'),
        ('{reason=~"crashed|not_started"}', '{reason="crashed"}'),
        ('{reason=~"crashed|not_started"}', ""),
        (" and max by (cluster) (resets(rf_consequences_unsettled[5m])) == 0", ""),
        ("max by (cluster) (rf_consequences_skipped) > 0 or ", ""),
        (" and on (cluster) count by (cluster) (rf_schedule_next_run_timestamp_seconds) > 0", ""),
        ("increase(rf_schedule_missed_total[15m])", "max_over_time(rf_schedule_missed_total[15m])"),
        ("(rf_schedule_next_run_timestamp_seconds) > 60", "(rf_schedule_next_run_timestamp_seconds) > 3600"),
    ],
)
def test_a_rule_that_is_wrong_fails_its_test(broken: str, by: str, tmp_path: Path) -> None:
    rules = (PROMETHEUS / "rules.yml").read_text()
    assert broken in rules
    (tmp_path / "rules.yml").write_text(rules.replace(broken, by))
    (tmp_path / "tests.yml").write_text((PROMETHEUS / "tests.yml").read_text())
    assert run("promtool", "test", "rules", "tests.yml", cwd=tmp_path).returncode != 0


def test_every_alert_is_tested_for_firing_and_for_not() -> None:
    tests = yaml.safe_load((PROMETHEUS / "tests.yml").read_text())["tests"]
    asked = [check for test in tests for check in test["alert_rule_test"]]
    firing = {check["alertname"] for check in asked if check["exp_alerts"]}
    quiet = {check["alertname"] for check in asked if not check["exp_alerts"]}
    assert firing == set(NAMES)
    assert quiet == set(NAMES) - {"RFJobsWatchdog"}


def test_the_core_alerts_are_there_with_all_windows() -> None:
    assert set(NAMES) == {
        "RFJobsErrorBudgetBurn", "RFJobsQueueStuck", "RFJobsQueueAgeHigh", "RFJobsNoWorkers", "RFJobsDeadLetterGrowing",
        "RFJobsLedgerMismatch", "RFJobsExporterStale", "RFJobsMetricsAbsent", "RFJobsWatchdog", "RFJobsParked",
        "RFJobsForged", "RFJobsUnopened", "RFJobsWorkerCrashLoop", "RFJobsScheduleMissed", "RFJobsNoScheduler",
        "RFJobsConsequencesUndrawn",
    }  # fmt: skip
    burn = {
        rule["labels"]["window"]: rule["labels"]["severity"]
        for rule in ALERTS if rule["alert"] == "RFJobsErrorBudgetBurn"
    }  # fmt: skip
    assert burn == {"1h/5m": "page", "6h/30m": "page", "1d/2h": "ticket", "3d/6h": "ticket"}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"] + rule["labels"].get("window", ""))
def test_annotations_are_whole(rule: dict[str, Any]) -> None:
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert "$value" in annotations["description"]
    assert annotations["runbook_url"].endswith(f"/{rule['alert']}.md")
    if rule["labels"]["scope"] == "queue":
        assert "var-queue={{ $labels.queue | urlquery }}" in annotations["dashboard_url"]
        assert "$labels.queue" in annotations["summary"]
    elif rule["labels"]["scope"] in ("schedule", "store", "worker"):
        assert annotations["dashboard_url"].endswith("?var-cluster={{ $labels.cluster | urlquery }}")


def test_every_alert_has_its_runbook_and_no_other_is_there() -> None:
    assert sorted(page.stem for page in RUNBOOKS.glob("*.md")) == NAMES


def test_the_page_of_monitoring_has_every_alert_with_its_severities() -> None:
    rows: dict[str, str] = {}
    for line in (ROOT / "docs/operations/monitoring.md").read_text().splitlines():
        rows |= dict.fromkeys(re.findall(r"\[(RFJobs\w+)\]", line), line.rpartition("| ")[2])
    assert sorted(rows) == NAMES
    for rule in ALERTS:
        assert rule["labels"]["severity"] in rows[rule["alert"]]


@pytest.mark.parametrize(
    "line", ["rf-jobs quues", "rf-jobs jobs sow x", "rf-jobs queues --quue x", "rf-jobs jobs show"]
)
def test_a_command_that_is_wrong_would_be_found(line: str) -> None:
    with pytest.raises(click.UsageError):
        check_command(line)


@pytest.mark.parametrize("name", NAMES)
def test_runbooks_are_whole(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert re.findall(r"^#+ (.*)$", text, re.MULTILINE) == [
        name, "What it means", "First three queries", "First three commands", "How to silence", "Likely causes",
    ]  # fmt: skip
    commands = re.findall(r"^ +\$ (.*)$", text, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        check_command(command)
    assert len(re.findall(r"```promql", text)) == 3


def test_queries_in_runbooks_parse(tmp_path: Path) -> None:
    queries = [
        q for page in RUNBOOKS.glob("*.md") for q in re.findall(r"```promql\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    rules = [{"record": "a:query:parsed", "expr": q.strip(), "labels": {"n": str(n)}} for n, q in enumerate(queries)]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    passes("promtool", "check", "rules", tmp_path / "queries.yml")


def test_recorded_series_that_are_used_are_recorded() -> None:
    assert {rule["record"] for rule in RULES if "record" in rule} == RECORDED


def test_links_are_escaped() -> None:
    fired = Fired("RFJobsQueueStuck", "5", labels={"cluster": "c 1", "queue": "a&b"})
    url = fired.expected(Settings())["exp_annotations"]["dashboard_url"]
    assert url.endswith("?var-cluster=c+1&var-queue=a%26b")


def test_amtool_checks_the_configuration() -> None:
    assert "SUCCESS" in passes("amtool", "check-config", ALERTMANAGER)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"] + rule["labels"].get("window", ""))
def test_alerts_reach_their_receiver(rule: dict[str, Any]) -> None:
    labels = {"alertname": rule["alert"], "cluster": "c1", "queue": "emails", **rule["labels"]}
    said = run(
        "amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", *(f"{k}={v}" for k, v in labels.items())
    )
    expected = {"page": "page", "ticket": "ticket", "none": "heartbeat"}[rule["labels"]["severity"]]
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip() == expected


def test_inhibitions_name_what_exists() -> None:
    rules = yaml.safe_load(ALERTMANAGER.read_text())["inhibit_rules"]
    scopes = {rule["labels"]["scope"] for rule in ALERTS}
    for rule in rules:
        text = " ".join(rule["source_matchers"] + rule["target_matchers"])
        assert set(re.findall(r"RFJobs\w+", text)) <= set(NAMES)
        named = re.findall(r'scope =~? "([\w|]+)"', text)
        assert {scope for each in named for scope in each.split("|")} <= scopes
    assert rules[0] == {
        "source_matchers": ['alertname = "RFJobsExporterStale"'],
        "target_matchers": ['scope =~ "queue|schedule|store"'],
        "equal": ["cluster"],
    }


def test_what_only_the_store_tells_is_muted_while_nobody_reads_it() -> None:
    """Each metric of an alert that a blind exporter mutes comes from an exporter; a worker's own page is scraped all the same."""
    for rule in ALERTS:
        metrics = [BY_SERIES[name] for name in metrics_in(rule["expr"]) if name in BY_SERIES]
        is_own = any(metric.source == "supervisor" for metric in metrics)
        assert (rule["labels"]["scope"] == "worker") == is_own, rule["alert"]
