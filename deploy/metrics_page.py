"""``docs/operations/metrics.md``: the table of metrics for people."""

from __future__ import annotations

from rf_jobs.telemetry.names import METRICS, Metric, metric_name

_HEAD = """# Metrics

Made from `rf_jobs/telemetry/names.py` by `python -m deploy.generate`; edit that, not this.

*Source* says who measures. What workers and dispatchers measure is flushed to the store every few seconds and shown by
the exporter, summed over all processes; what the exporter reads from the store is exact at the moment of the scrape.

| metric | kind | labels | unit | source | says |
|---|---|---|---|---|---|
"""


def page(namespace: str) -> str:
    rows = "".join(_row(metric, namespace) for metric in METRICS)
    sets: dict[tuple[float, ...], list[str]] = {}
    for metric in METRICS:
        if metric.buckets:
            sets.setdefault(metric.buckets, []).append(f"`{metric_name(metric, namespace)}`")
    buckets = "".join(f"* {', '.join(users)}: {' '.join(f'{b:g}' for b in bounds)}\n" for bounds, users in sets.items())
    return f"{_HEAD}{rows}\n## Buckets\n\nUpper bounds, without `+Inf`:\n\n{buckets}"


def _row(metric: Metric, namespace: str) -> str:
    labels = ", ".join(_label(metric, label) for label in metric.labels) or "-"
    name = metric_name(metric, namespace)
    return f"| `{name}` | {metric.kind} | {labels} | {metric.unit or '-'} | {metric.source} | {metric.help} |\n"


def _label(metric: Metric, label: str) -> str:
    values = metric.values.get(label)
    return f"`{label}` ({', '.join(values)})" if values else f"`{label}`"
