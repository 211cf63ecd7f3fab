from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.files import ROOT, run, stale
from deploy.generate import files
from rf_jobs.telemetry.dashboards.every import DASHBOARDS
from tests.support.programs import run as run_program

Json = dict[str, Any]
DATASOURCES: list[Json] = yaml.safe_load((ROOT / "grafana/provisioning/datasources/rf-jobs.yaml").read_text())[
    "datasources"
]
COMMITTED = sorted((ROOT / "grafana/dashboards").glob("*.json"))
GRID = 24

pytestmark = pytest.mark.prometheus


def load(path: Path) -> Json:
    loaded: Json = json.loads(path.read_text())
    return loaded


def promql_faults(queries: dict[str, str], folder: Path) -> list[str]:
    """What promtool thinks of the queries, with Grafana's variables filled in."""
    rules: list[Json] = []
    for query in queries.values():
        filled = query.replace("$__rate_interval", "1m").replace("$__range", "3h")
        filled = re.sub(r"\$\{?\w+\}?", ".*", filled)
        rules.append({"record": "a:query:parsed", "expr": filled, "labels": {"n": str(len(rules))}})
    file = folder / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    result = run_program("promtool", "check", "rules", file)
    return [] if result.returncode == 0 else [result.stdout + result.stderr]


def faults(dashboard: Json, folder: Path) -> list[str]:
    """All that would make Grafana refuse or misdraw a dashboard, as far as can be told without it."""
    found: list[str] = []
    if not re.fullmatch(r"[a-z0-9-]{1,40}", dashboard.get("uid", "")) or not dashboard.get("title"):
        found.append("uid or title")
    panels: list[Json] = dashboard["panels"]
    ids = [panel.get("id") for panel in panels]
    if len(set(ids)) != len(ids) or not all(isinstance(each, int) and each > 0 for each in ids):
        found.append("panel ids")
    found += [f"place of {a['title']}" for a in panels if a["gridPos"]["x"] + a["gridPos"]["w"] > GRID]
    found += [f"{a['title']} over {b['title']}" for a in panels for b in panels if a["id"] < b["id"] and overlap(a, b)]
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    known = {source["uid"] for source in DATASOURCES} | {"${datasource}"}
    found += [f"data source {uid}" for uid in set(re.findall(r'"uid": "([^"]+)"', uids(dashboard))) - known]
    queries: dict[str, str] = {}
    for panel in panels:
        if panel["type"] == "row":
            found += (
                [] if panel["title"] and panel["panels"] == [] and not panel["collapsed"] else [f"row {panel['title']}"]
            )
            continue
        targets: list[Json] = panel.get("targets", [])
        refs = [target.get("refId") for target in targets]
        if not targets or not all(refs) or len(set(refs)) != len(refs):
            found.append(f"refIds of {panel['title']}")
        if panel["type"] == "timeseries" and not all(target.get("exemplar") for target in targets):
            found.append(f"exemplars of {panel['title']}")
        if not panel.get("description") or not panel.get("options"):
            found.append(f"description or options of {panel['title']}")
        for target in targets:
            queries[f"{panel['title']} {target.get('refId')}"] = target["expr"]
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval", "__range"}
            found += [f"variable {name} in {panel['title']}" for name in used - variables]
    for variable in dashboard["templating"]["list"]:
        if not variable.get("current"):
            found.append(f"current of {variable['name']}")
    return found + promql_faults(queries, folder)


def uids(dashboard: Json) -> str:
    sources = [panel.get("datasource") for panel in dashboard["panels"] if panel["type"] != "row"]
    sources += [target.get("datasource") for panel in dashboard["panels"] for target in panel.get("targets", [])]
    sources += [annotation.get("datasource") for annotation in dashboard["annotations"]["list"]]
    return json.dumps(sources)


def overlap(one: Json, other: Json) -> bool:
    a, b = one["gridPos"], other["gridPos"]
    beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
    above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
    return not (beside or above)


def test_what_is_committed_is_what_the_code_makes() -> None:
    assert stale(files()) == [], "run python -m deploy.generate"
    assert {path.stem for path in COMMITTED} == {dashboard.uid for dashboard in DASHBOARDS}


def test_the_check_fails_on_a_file_that_was_edited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    into = ["--into", str(tmp_path)]
    assert run("", files, into) == 0
    assert run("", files, [*into, "--check"]) == 0
    edited = tmp_path / "grafana/dashboards/rfjobs-overview.json"
    edited.write_text(edited.read_text().replace("Ready now", "Ready"))
    assert run("", files, [*into, "--check"]) == 1
    assert "rfjobs-overview.json is not what the code makes" in capsys.readouterr().err


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_dashboards_are_sound(path: Path, tmp_path: Path) -> None:
    dashboard = load(path)
    assert path.stem == dashboard["uid"]
    assert faults(dashboard, tmp_path) == []


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.uid)
@pytest.mark.parametrize("namespace", ["rf", "acme"])
def test_dashboards_are_sound_under_a_namespace(dashboard: Any, namespace: str, tmp_path: Path) -> None:
    made = dashboard.json(namespace)
    assert faults(made, tmp_path) == []
    assert f"{namespace}_queue_depth" in json.dumps(made["templating"])


def _unset_ref(dashboard: Json) -> None:
    dashboard["panels"][0]["targets"][0]["refId"] = ""


def _same_ids(dashboard: Json) -> None:
    dashboard["panels"][1]["id"] = dashboard["panels"][0]["id"]


def _overlapping(dashboard: Json) -> None:
    dashboard["panels"][1]["gridPos"] = dashboard["panels"][0]["gridPos"]


def _unknown_source(dashboard: Json) -> None:
    dashboard["panels"][2]["datasource"] = {"type": "prometheus", "uid": "nowhere"}


def _bad_promql(dashboard: Json) -> None:
    dashboard["panels"][3]["targets"][0]["expr"] = "sum by (queue (queue_depth"


def _unknown_variable(dashboard: Json) -> None:
    dashboard["panels"][3]["targets"][0]["expr"] = 'queue_depth{queue=~"$que"}'


def _no_exemplars(dashboard: Json) -> None:
    next(p for p in dashboard["panels"] if p["type"] == "timeseries")["targets"][0]["exemplar"] = False


def _null_options(dashboard: Json) -> None:
    dashboard["panels"][0]["options"] = None


def _folded_row(dashboard: Json) -> None:
    next(p for p in dashboard["panels"] if p["type"] == "row")["collapsed"] = True


def _no_current(dashboard: Json) -> None:
    dashboard["templating"]["list"][1]["current"] = {}


@pytest.mark.parametrize(
    ("break_it", "fault"),
    [
        (_unset_ref, "refIds"), (_same_ids, "panel ids"), (_overlapping, "over"), (_unknown_source, "data source nowhere"),
        (_bad_promql, "could not parse"), (_unknown_variable, "variable que"), (_no_exemplars, "exemplars"),
        (_null_options, "options"), (_no_current, "current of cluster"), (_folded_row, "row Schedules"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_a_broken_dashboard_fails(break_it: Callable[[Json], None], fault: str, tmp_path: Path) -> None:
    broken = copy.deepcopy(load(COMMITTED[0]))
    break_it(broken)
    assert any(fault in each for each in faults(broken, tmp_path))


def test_the_overview_has_its_panels_symptoms_first() -> None:
    overview = load(ROOT / "grafana/dashboards/rfjobs-overview.json")
    assert [panel["title"] for panel in overview["panels"]] == [
        "Jobs finished / s", "Failure ratio", "Oldest ready job", "Ready now", "Dead letters", "Worker utilization",
        "Error budget left (30d)", "Ledger imbalance", "Dispatched vs finished", "Depth by state",
        "Queue wait p50/p95/p99", "Run time p50/p95/p99", "Queues", "Worst job classes by failures",
        "Schedules", "Schedulers alive", "All schedules", "Next run overdue", "Ticks missed", "Ticks by result",
        "Lag of ticks p50/p95/p99", "Next runs",
        "Parked jobs, batches and chains", "Parked jobs", "Refused or not opened", "Open batches and chains",
        "Their members to come", "Consequences to be drawn", "Could not be drawn", "Parked jobs by queue",
        "Open batches and chains, and their members", "Consequences",
    ]  # fmt: skip
    assert [variable["name"] for variable in overview["templating"]["list"]] == ["datasource", "cluster", "queue"]
    assert overview["annotations"]["list"][0]["name"] == "Firing alerts"
    assert overview["links"][0] == {**overview["links"][0], "asDropdown": True, "includeVars": True, "keepTime": True}
    assert overview["tags"] == overview["links"][0]["tags"]


def test_rows_begin_at_the_left_under_what_is_above_them() -> None:
    overview = load(ROOT / "grafana/dashboards/rfjobs-overview.json")
    rows = [panel for panel in overview["panels"] if panel["type"] == "row"]
    assert [row["title"] for row in rows] == ["Schedules", "Parked jobs, batches and chains"]
    for row in rows:
        place = row["gridPos"]
        above = [panel["gridPos"] for panel in overview["panels"] if panel["id"] < row["id"]]
        below = [panel["gridPos"] for panel in overview["panels"] if panel["id"] > row["id"]]
        assert (place["x"], place["w"], place["h"]) == (0, GRID, 1)
        assert place["y"] == max(each["y"] + each["h"] for each in above)
        assert min(each["y"] for each in below) == place["y"] + 1


def test_data_sources_refer_to_each_other_by_uids_that_exist() -> None:
    known = {source["uid"] for source in DATASOURCES}
    assert known == {"prometheus", "tempo", "loki"}
    for source in DATASOURCES:
        assert set(re.findall(r"'datasourceUid': '(\w+)'", str(source["jsonData"]))) <= known
    prometheus = DATASOURCES[0]["jsonData"]
    assert prometheus["exemplarTraceIdDestinations"] == [{"name": "trace_id", "datasourceUid": "tempo"}]


def test_dashboards_are_read_from_where_compose_mounts_them() -> None:
    provider = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/rf-jobs.yaml").read_text())["providers"][0]
    grafana = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]
    assert provider["allowUiUpdates"] is False
    assert provider["folder"] == "RF Jobs"
