"""What a dashboard is made of, and how it becomes Grafana's JSON.

``$Q`` in a query stands for the cluster and queue matchers, ``$C`` for the cluster matcher alone, ``$I`` for Grafana's
rate interval. Panels flow from left to right in the order given, 24 columns to a row: symptoms first. A ``Row`` is a heading.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Any, Literal

from rf_jobs.telemetry.promql import renamed

Json = dict[str, Any]

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
TAG = "rf-jobs"
SCHEMA_VERSION = 41

_SHORT = {"$Q": 'cluster=~"$cluster", queue=~"$queue"', "$C": 'cluster=~"$cluster"', "$I": "$__rate_interval"}


@dataclass(frozen=True)
class Query:
    """One PromQL query of a panel, with the legend of its series."""

    expr: str
    legend: str = ""

    def promql(self, namespace: str = "") -> str:
        """As it is stored: short forms spelt out, metrics under the namespace. Grafana fills in the ``$variables``."""
        expr = self.expr
        for short, full in _SHORT.items():
            expr = expr.replace(short, full)
        return renamed(expr, namespace)


def quantiles(histogram: str, among: str = "$Q") -> tuple[Query, ...]:
    """Its median, and what the slowest in twenty and in a hundred take."""
    return tuple(
        Query(f"histogram_quantile({q}, sum by (le) (rate({histogram}_bucket{{{among}}}[$I])))", f"p{q * 100:g}")
        for q in (0.5, 0.95, 0.99)
    )


@dataclass(frozen=True)
class Panel:
    """A rectangle with a title, a unit, its queries and a sentence on how to read it."""

    title: str
    kind: Literal["stat", "gauge", "timeseries", "table"]
    queries: tuple[Query, ...]
    reads: str
    unit: str = "short"
    width: int = 12
    height: int = 8
    steps: tuple[tuple[float | None, str], ...] = ((None, "green"),)
    """Colours from a value on; the first has none."""
    decimals: int | None = None
    limits: tuple[float, float] | None = None
    columns: tuple[tuple[str, str, str], ...] = ()
    """A table's value columns, one per query: refId, title, unit."""
    key: str = ""
    """The label that joins a table's queries to rows; empty for a table of one query."""


@dataclass(frozen=True)
class Row:
    """A heading over the panels that follow, which can be folded away with them."""

    title: str


@dataclass(frozen=True)
class Dashboard:
    """A dashboard; ``uid`` is also the name of its file."""

    uid: str
    title: str
    describes: str
    panels: tuple[Panel | Row, ...]
    job_class: bool = False
    """Whether it offers the variable ``job_class`` too."""
    refresh: str = "30s"

    def json(self, namespace: str = "") -> Json:
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.describes,
            "tags": [TAG],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,
            "refresh": self.refresh,
            "time": {"from": "now-3h", "to": "now"},
            "timezone": "browser",
            "annotations": {"list": [_firing_alerts()]},
            "links": [_siblings()],
            "templating": {"list": _variables(self.job_class, namespace)},
            "panels": _laid_out(self.panels, namespace),
        }


def _laid_out(panels: tuple[Panel | Row, ...], namespace: str) -> list[Json]:
    laid: list[Json] = []
    x = y = row = 0
    for number, panel in enumerate(panels, start=1):
        if isinstance(panel, Row):
            position = {"x": 0, "y": y + row, "w": 24, "h": 1}
            laid.append(
                {
                    "id": number,
                    "gridPos": position,
                    "type": "row",
                    "title": panel.title,
                    "collapsed": False,
                    "panels": [],
                }
            )
            x, y, row = 0, y + row + 1, 0
            continue
        if x + panel.width > 24:
            x, y, row = 0, y + row, 0
        position = {"x": x, "y": y, "w": panel.width, "h": panel.height}
        laid.append({"id": number, "gridPos": position, **_panel(panel, namespace)})
        x, row = x + panel.width, max(row, panel.height)
    return laid


def _panel(panel: Panel, namespace: str) -> Json:
    defaults: Json = {
        "unit": panel.unit,
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": [{"value": at, "color": color} for at, color in panel.steps]},
        "noValue": "no data",
    }
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    if panel.limits is not None:
        defaults["min"], defaults["max"] = panel.limits
    if panel.kind == "timeseries":
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": False}
    built: Json = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.reads,
        "datasource": DATASOURCE,
        "targets": [_target(panel, i, namespace) for i in range(len(panel.queries))],
        "fieldConfig": {"defaults": defaults, "overrides": _overrides(panel)},
        "options": _OPTIONS[panel.kind],
    }
    if panel.kind == "table":
        built["transformations"] = _transformations(panel)
    return built


def _target(panel: Panel, i: int, namespace: str) -> Json:
    query, over_time = panel.queries[i], panel.kind == "timeseries"
    return {
        "refId": string.ascii_uppercase[i],
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.promql(namespace),
        "legendFormat": query.legend or "__auto",
        "range": over_time,
        "instant": not over_time,
        "exemplar": over_time,
        "format": "table" if panel.kind == "table" else "time_series",
    }


_REDUCED: Json = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: dict[str, Json] = {
    "stat": {
        "reduceOptions": _REDUCED,
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "textMode": "auto",
        "orientation": "auto",
    },
    "gauge": {
        "reduceOptions": _REDUCED,
        "orientation": "auto",
        "showThresholdLabels": False,
        "showThresholdMarkers": True,
    },
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "table": {"showHeader": True, "cellHeight": "sm"},
}


def _value_column(panel: Panel, ref: str) -> str:
    return "Value" if len(panel.queries) == 1 else f"Value #{ref}"


def _overrides(panel: Panel) -> list[Json]:
    return [
        {"matcher": {"id": "byName", "options": title}, "properties": [{"id": "unit", "value": unit}]}
        for _, title, unit in panel.columns
    ]


def _transformations(panel: Panel) -> list[Json]:
    joined: list[Json] = []
    if panel.key:
        joined = [{"id": "joinByField", "options": {"byField": panel.key, "mode": "outer"}}]
    hidden = ["Time", "__name__", "cluster"]
    hidden += [f"{name} {i}" for name in hidden for i in range(1, len(panel.queries) + 1) if len(panel.queries) > 1]
    organize = {
        "excludeByName": dict.fromkeys(hidden, True),
        "indexByName": {},
        "renameByName": {_value_column(panel, ref): title for ref, title, _ in panel.columns},
    }
    return [*joined, {"id": "organize", "options": organize}]


def _variables(job_class: bool, namespace: str) -> list[Json]:
    depth = renamed("queue_depth", namespace)
    listed: list[Json] = [
        {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "refresh": 1,
            "hide": 0,
            "multi": False,
            "includeAll": False,
            "regex": "",
            "options": [],
            "current": {"text": "Prometheus", "value": "prometheus"},
        },
        _label_variable("cluster", "Cluster", f"label_values({depth}, cluster)"),
        _label_variable("queue", "Queue", f'label_values({depth}{{cluster=~"$cluster"}}, queue)'),
    ]
    if job_class:
        processed = renamed("jobs_processed_total", namespace)
        classes = f"label_values({processed}{{{_SHORT['$Q']}}}, job_class)"
        listed.append(_label_variable("job_class", "Job class", classes))
    return listed


def _label_variable(name: str, label: str, query: str) -> Json:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"qryType": 5, "query": query, "refId": f"variable-{name}"},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",  # also where Prometheus adds no cluster label
        "regex": "",
        "options": [],
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _firing_alerts() -> Json:
    firing = 'ALERTS{alertname=~"RFJobs.*", alertname!="RFJobsWatchdog", alertstate="firing", cluster=~"$cluster"}'
    return {
        "name": "Firing alerts",
        "enable": True,
        "hide": False,
        "iconColor": "red",
        "datasource": DATASOURCE,
        "target": {"refId": "Anno", "expr": firing, "limit": 100, "matchAny": False, "tags": [], "type": "dashboard"},
        "titleFormat": "{{alertname}}",
        "textFormat": "{{cluster}} {{queue}} {{schedule}}",
        "tagKeys": "severity",
        "step": "60s",
    }


def _siblings() -> Json:
    return {
        "type": "dashboards",
        "title": "RF Jobs",
        "tags": [TAG],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "The other dashboards, with this time and these variables",
        "url": "",
    }
