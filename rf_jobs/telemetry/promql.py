"""Reads PromQL just well enough to say which metrics a query names, and to put them under a namespace.

Whether a query is valid is promtool's business. This knows strings, label matchers, ranges, grouping clauses, dashboard
variables (``$name``), functions and keywords; what is left over is the name of a metric or of a recorded series.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rf_jobs.telemetry.names import BY_NAME, BY_SERIES, metric_name

EXTERNAL = frozenset(
    {"up", "ALERTS", "scrape_samples_scraped", "process_resident_memory_bytes", "process_cpu_seconds_total"}
)
"""Series that Prometheus itself or prometheus-client makes; no namespace applies to them."""

_STRING = r'"(?:\\.|[^"\\])*"' + r"|'(?:\\.|[^'\\])*'"
_TOKEN = re.compile(
    rf"""
      (?:{_STRING})
    | \{{(?:{_STRING}|[^"'}}])*\}}
    | \[[^\]]*\]
    | \$\w+ | \$\{{[^}}]*\}}
    | \b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)
    | [0-9][0-9a-zA-Z.]*
    | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?P<call>\s*\()?
    """,
    re.VERBOSE,
)
_WORDS = frozenset({
    "and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right",
    "inf", "nan", "atan2", "start", "end",
    "sum", "min", "max", "avg", "count", "group", "stddev", "stdvar", "topk", "bottomk", "count_values", "quantile",
})  # fmt: skip


def metrics_in(query: str) -> set[str]:
    """Every series name that the query selects, as it stands there (``job_duration_seconds_bucket``, ``up``, ...)."""
    return {match["name"] for match in _names(query)}


def unknown_in(query: str, recorded: frozenset[str] | set[str] = frozenset()) -> set[str]:
    """Those of :func:`metrics_in` that are neither in the table, nor recorded, nor :data:`EXTERNAL`."""
    return metrics_in(query) - BY_SERIES.keys() - EXTERNAL - recorded


def recorded_name(name: str, namespace: str) -> str:
    """``level:metric:operations`` under a namespace: the part in the middle gets it."""
    level, metric, operations = name.split(":")
    return f"{level}:{metric_name(metric, namespace)}:{operations}"


def renamed(query: str, namespace: str) -> str:
    """The query under a namespace: our metrics and the series recorded from them, nothing else."""
    if not namespace:
        return query
    parts, at = [], 0
    for match in _names(query):
        name = match["name"]
        if name in BY_SERIES or name in BY_NAME:
            name = metric_name(name, namespace)
        elif name.count(":") == 2:
            name = recorded_name(name, namespace)
        parts += [query[at : match.start("name")], name]
        at = match.end("name")
    return "".join(parts) + query[at:]


def _names(query: str) -> Iterator[re.Match[str]]:
    for match in _TOKEN.finditer(query):
        name = match["name"]
        if name is not None and not match["call"] and name.lower() not in _WORDS:
            yield match
