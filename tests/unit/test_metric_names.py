from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rf_jobs.telemetry import names
from rf_jobs.telemetry.names import BY_NAME, METRICS, Metric, metric_name
from rf_jobs.telemetry.promql import metrics_in, renamed, unknown_in
from rf_jobs.telemetry.rules.recording import RECORDED
from rf_jobs.words.states import LEDGER_EVENTS, State

ROOT = Path(__file__).resolve().parents[2]
THE_SIX = {
    "jobs_dispatched_total": "counter",
    "jobs_processed_total": "counter",
    "jobs_failed_total": "counter",
    "job_duration_seconds": "histogram",
    "queue_depth": "gauge",
    "worker_utilization": "gauge",
}
FORBIDDEN_LABELS = {
    "job", "instance", "le", "quantile", "cluster", "worker", "worker_id", "host", "hostname", "pod", "pid", "job_id",
    "error_message", "message", "tenant", "tag", "tags", "attempt", "unique_key",
}  # fmt: skip

each_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


def test_the_owners_six_are_there_exactly() -> None:
    assert {name: BY_NAME[name].kind for name in THE_SIX} == THE_SIX


def test_every_kind_is_one_that_the_exporter_writes() -> None:
    assert {metric.kind for metric in METRICS} == {"counter", "gauge", "histogram", "info"}


def test_no_name_stands_twice() -> None:
    assert len(BY_NAME) == len(METRICS)
    series = [name for metric in METRICS for name in metric.series]
    assert len(set(series)) == len(series)


@each_metric
def test_names_conform(metric: Metric) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.name)
    assert metric.name.startswith(("jobs_", "job_", "queue_", "worker_", "rf_"))
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.name.endswith("_info") == (metric.kind == "info")
    assert not metric.name.endswith(("_bucket", "_sum", "_count", "_created"))
    for wrong in ("_ms", "_milliseconds", "_minutes", "_kb", "_mb", "_percent"):
        assert wrong not in metric.name, "base units only"
    for unit in ("seconds", "bytes"):
        base = metric.name.removesuffix("_total")
        assert base.endswith("_" + unit) == (metric.unit == unit), "the unit is the last part of the name"


@each_metric
def test_labels_are_few_and_bounded(metric: Metric) -> None:
    assert not FORBIDDEN_LABELS & set(metric.labels)
    assert all(re.fullmatch(r"[a-z][a-z_]*", label) for label in metric.labels)
    assert metric.values.keys() <= set(metric.labels)
    enumerated = [label in metric.values for label in metric.labels]
    assert enumerated == sorted(enumerated), "enumerated labels come last: precreate() builds series in this order"


@each_metric
def test_help_and_buckets(metric: Metric) -> None:
    assert metric.help.endswith(".")
    assert "\n" not in metric.help
    assert (metric.buckets is not None) == (metric.kind == "histogram")
    if metric.buckets:
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert metric.buckets[-1] != float("inf")


def test_bucket_sets_have_the_objectives_edges() -> None:
    assert 30.0 in names.WAIT, "freshness: started within 30 s"
    assert len(names.RUN) == 16
    assert len(names.WAIT) == 17
    assert len(names.OP) == 10


def test_the_ledgers_events_are_the_state_machines() -> None:
    assert set(names.EVENTS) == set(LEDGER_EVENTS)
    assert set(names.DEPTH_STATES) <= {state.value for state in State}


def test_the_namespace_is_put_before_every_name_once() -> None:
    assert metric_name(names.JOBS_FAILED) == "jobs_failed_total"
    assert metric_name(names.JOBS_FAILED, "acme") == "acme_jobs_failed_total"
    assert metric_name(names.WORKERS, "acme") == "acme_rf_workers"
    assert metric_name(names.WORKERS, "rf") == "rf_workers"
    for namespace in ("", "rf", "acme"):
        assert len({metric_name(metric, namespace) for metric in METRICS}) == len(METRICS)
    for bad in ("1x", "a-b", "a b", "é", "a\n"):
        with pytest.raises(ValueError, match="namespace is"):
            metric_name("x", bad)


def test_queries_are_read_and_renamed() -> None:
    query = (
        'topk(3, sum by (queue, le) (rate(job_duration_seconds_bucket{queue=~"up|jobs_failed_total}", cluster="$c"}[5m])))'
        " / on (queue) group_left (job_class) queue:jobs_processed:rate5m unless bool up == 1e3 or vector(0) > inf"
    )
    assert metrics_in(query) == {"job_duration_seconds_bucket", "queue:jobs_processed:rate5m", "up"}
    changed = renamed(query, "acme")
    assert metrics_in(changed) == {"acme_job_duration_seconds_bucket", "queue:acme_jobs_processed:rate5m", "up"}
    assert changed.replace("acme_", "") == query
    assert renamed(query, "") == query
    assert unknown_in("sum(jobs_faild_total) + queue_depth") == {"jobs_faild_total"}


def _panel_queries() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for path in sorted((ROOT / "grafana/dashboards").glob("*.json")):
        dashboard: dict[str, Any] = json.loads(path.read_text())
        for panel in dashboard["panels"]:
            found += [(f"{path.stem}: {panel['title']}", target["expr"]) for target in panel.get("targets", ())]
    return found


def _rule_queries() -> list[tuple[str, str]]:
    groups = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())["groups"]
    return [(rule.get("alert") or rule["record"], rule["expr"]) for group in groups for rule in group["rules"]]


def _runbook_queries() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for path in sorted((ROOT / "docs/runbooks").glob("*.md")):
        blocks = re.findall(r"```promql\n(.*?)```", path.read_text(), re.DOTALL)
        found += [(path.stem, block.strip()) for block in blocks]
    return found


def test_every_metric_in_dashboards_rules_and_runbooks_exists() -> None:
    queries = _panel_queries() + _rule_queries() + _runbook_queries()
    assert len(queries) > 60
    unknown = [(where, unknown_in(query, RECORDED)) for where, query in queries if unknown_in(query, RECORDED)]
    assert unknown == []


def test_a_misspelt_metric_would_be_found() -> None:
    where, query = _panel_queries()[0]
    assert not unknown_in(query, RECORDED), where
    assert unknown_in(query.replace("jobs_", "jbs_"), RECORDED)


def test_metrics_named_in_the_prose_of_runbooks_exist() -> None:
    families = ("jobs_", "job_", "queue_", "worker_", "rf_")
    settings = {"queue_age_objective_seconds", "job_class"}
    for path in sorted((ROOT / "docs/runbooks").glob("*.md")):
        for word in re.findall(r"`([a-z_]+)`", path.read_text()):
            if word.startswith(families) and word not in settings:
                assert word in BY_NAME, f"{path.name} names {word}"


def test_label_values_in_rules_are_those_of_the_table() -> None:
    for where, query in _rule_queries() + _panel_queries():
        for metric, label, value in re.findall(r'(\w+)\{[^}]*?\b(state|event|outcome|reason)=~?"([^"$]+)"', query):
            known = next((m.values[label] for m in METRICS if metric in m.series and label in m.values), None)
            assert known is not None, f"{where}: {metric} has no values for {label}"
            assert set(value.split("|")) <= set(known), where


def test_the_table_imports_nothing_of_ours() -> None:
    source = (ROOT / "rf_jobs/telemetry/names.py").read_text()
    imported = re.findall(r"^(?:from|import) ([\w.]+)", source, re.MULTILINE)
    assert imported
    assert all(
        module.split(".")[0] in {"__future__", "re", "collections", "dataclasses", "types", "typing"}
        for module in imported
    )
