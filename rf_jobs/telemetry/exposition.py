"""The exposition: metric cells, and the aggregate that the store keeps of all processes' deltas, as Prometheus reads them.

Everything becomes :class:`Reading` first, one per series. :class:`MetricsCollector` gathers readings from any number of
sources (a live :class:`~rf_jobs.telemetry.cells.MetricStore`, :func:`read_flushed` of the store's hash, gauges that the
exporter computes), adds up equal series, and gives prometheus-client its metric families; that library then negotiates
the format. Families come in the table's order, series sorted, so that two scrapes can be compared.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf, isfinite

from prometheus_client import exposition as client
from prometheus_client import metrics_core
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as ClientExemplar
from prometheus_client.utils import floatToGoString

from rf_jobs.telemetry import names
from rf_jobs.telemetry.cells import Cell, Exemplar, Histogram, MetricStore
from rf_jobs.telemetry.cells import Counter as CounterCell
from rf_jobs.telemetry.names import Metric, metric_name
from rf_jobs.words.version import package_version


@dataclass
class Reading:
    """One series at one moment."""

    metric: Metric
    values: tuple[str, ...] = ()
    value: float = 0.0
    """The value; of a histogram, the sum of what was observed."""
    buckets: dict[float, float] = field(default_factory=dict)
    """Of a histogram: observations by the upper bound of their bucket, not cumulative, ``inf`` included."""
    exemplars: dict[float, Exemplar] = field(default_factory=dict)
    """The latest by bucket; a counter's stands under ``inf``."""


def build_info(server: str) -> Reading:
    """The versions of this process and of the server that it works with."""
    return Reading(names.BUILD_INFO, (package_version(), platform.python_version(), server), 1.0)


Source = MetricStore | Callable[[], Iterable[Reading]]


@dataclass
class Flushed:
    """What the store's hash said."""

    readings: list[Reading]
    ignored: int
    """Fields that this version doesn't know or can't read: another version's, or damaged."""


class MetricsCollector(Collector):
    """The custom collector: reads its sources anew at each scrape and renames everything under ``namespace``."""

    def __init__(self, *sources: Source, namespace: str = "") -> None:
        metric_name("x", namespace)  # refuses a bad namespace now, not at the first scrape
        self._sources = sources
        self._namespace = namespace

    def collect(self) -> Iterator[metrics_core.Metric]:
        found: dict[str, dict[tuple[str, ...], Reading]] = {}
        for source in self._sources:
            readings = store_readings(source) if isinstance(source, MetricStore) else source()
            for reading in readings:
                series = found.setdefault(reading.metric.name, {})
                known = series.get(reading.values)
                series[reading.values] = added(known, reading) if known else reading
        order = {name: place for place, name in enumerate(names.BY_NAME)}
        for _, series in sorted(found.items(), key=lambda item: (order.get(item[0], len(order)), item[0])):
            yield _family([series[values] for values in sorted(series)], self._namespace)


class Together(Collector):
    """Several collectors as one: ours, the process's, a user's registry. Their families must differ."""

    def __init__(self, *collectors: Collector) -> None:
        self._collectors = collectors

    def collect(self) -> Iterator[metrics_core.Metric]:
        for collector in self._collectors:
            yield from collector.collect()


def render(collector: Collector, accept: str = "") -> tuple[bytes, str]:
    """The body and the content type for an ``Accept`` header: OpenMetrics with exemplars if asked for, else text."""
    encode, content_type = client.choose_encoder(accept)
    return encode(collector), content_type


def store_readings(store: MetricStore) -> Iterator[Reading]:
    """The live cells of a process."""
    for metric, values, cell in store.cells():
        yield _read_cell(metric, values, cell)


def read_flushed(
    increments: Mapping[str, str | float], exemplars: Mapping[str, str] | None = None, *, extra: Iterable[Metric] = ()
) -> Flushed:
    """Read back the sum of all deltas (see :mod:`rf_jobs.telemetry.cells` for its fields).

    ``extra`` are metrics that are not in the table, a user's own. A field that can't be read is counted, never raised:
    one odd worker must not blind the exporter.
    """
    known = {**names.BY_NAME, **{metric.name: metric for metric in extra}}
    series: dict[tuple[str, tuple[str, ...]], Reading] = {}
    ignored = 0
    for text, amount in increments.items():
        try:
            reading, bound = _place(series, known, text)
            value = float(amount)
        except (ValueError, ArithmeticError):
            ignored += 1
            continue
        if bound is None:
            reading.value += value
        else:
            reading.buckets[bound] = reading.buckets.get(bound, 0.0) + value
    for text, exemplar in (exemplars or {}).items():
        try:
            reading, bound = _place(series, known, text)
            amount, trace_id, when = json.loads(exemplar)
            reading.exemplars[inf if bound is None else bound] = (float(amount), str(trace_id), float(when))
        except (ValueError, TypeError, ArithmeticError):
            ignored += 1
    for reading in series.values():
        if reading.metric.kind == "histogram" and set(reading.buckets) <= {*(reading.metric.buckets or ()), inf}:
            reading.buckets = {
                bound: reading.buckets.get(bound, 0.0) for bound in (*(reading.metric.buckets or ()), inf)
            }
    return Flushed(list(series.values()), ignored)


def _place(
    series: dict[tuple[str, tuple[str, ...]], Reading], known: Mapping[str, Metric], text: str
) -> tuple[Reading, float | None]:
    """The reading that a field belongs to (made if new), and its bucket's bound if it names a bucket."""
    parts = json.loads(text)
    if not isinstance(parts, list) or not parts or not isinstance(parts[0], str) or parts[0] not in known:
        raise ValueError("not a field of a known metric")
    metric = known[parts[0]]
    values = tuple(parts[1 : 1 + len(metric.labels)])
    rest = parts[1 + len(metric.labels) :]
    if len(values) != len(metric.labels) or not all(isinstance(value, str) for value in values):
        raise ValueError("the labels are others")
    if len(rest) != (1 if metric.kind == "histogram" else 0):
        raise ValueError("another kind of metric")
    bound = None if not rest or rest[0] == "sum" else _bound(rest[0])
    reading = series.get((metric.name, values))
    if reading is None:
        reading = series[metric.name, values] = Reading(metric, values)
    return reading, bound


def _bound(part: object) -> float:
    if part == "+Inf":
        return inf
    if isinstance(part, bool) or not isinstance(part, int | float) or not isfinite(part):
        raise ValueError("not a bucket's bound")
    return float(part)


def _read_cell(metric: Metric, values: tuple[str, ...], cell: Cell) -> Reading:
    if isinstance(cell, Histogram):
        bounds = (*cell.bounds, inf)
        exemplars = {bound: each for bound, each in zip(bounds, cell.exemplars, strict=True) if each is not None}
        counts: list[float] = list(cell.counts)
        return Reading(metric, values, cell.sum, dict(zip(bounds, counts, strict=True)), exemplars)
    if isinstance(cell, CounterCell) and cell.exemplar is not None:
        return Reading(metric, values, cell.value, exemplars={inf: cell.exemplar})
    return Reading(metric, values, cell.value)


def added(first: Reading, second: Reading) -> Reading:
    """Two readings of one series: counts add up, of a gauge the later source wins, of exemplars the later time."""
    if first.metric.kind in {"gauge", "info"}:
        return second
    buckets = dict(first.buckets)
    for bound, count in second.buckets.items():
        buckets[bound] = buckets.get(bound, 0.0) + count
    exemplars = dict(first.exemplars)
    for bound, exemplar in second.exemplars.items():
        if bound not in exemplars or exemplar[2] >= exemplars[bound][2]:
            exemplars[bound] = exemplar
    return Reading(first.metric, first.values, first.value + second.value, buckets, exemplars)


def _family(readings: list[Reading], namespace: str) -> metrics_core.Metric:
    metric = readings[0].metric
    name = metric_name(metric, namespace)
    base = name.removesuffix("_total")
    unit = metric.unit if metric.unit and base.endswith("_" + metric.unit) else ""
    if metric.kind == "counter":
        counters = metrics_core.CounterMetricFamily(base, metric.help, labels=metric.labels, unit=unit)
        for each in readings:
            counters.add_metric(each.values, each.value, exemplar=_client_exemplar(each.exemplars.get(inf)))
        return counters
    if metric.kind == "histogram":
        histograms = metrics_core.HistogramMetricFamily(name, metric.help, labels=metric.labels, unit=unit)
        for each in readings:
            histograms.add_metric(each.values, list(_cumulative(each)), each.value)
        return histograms
    if metric.kind == "info":
        infos = metrics_core.InfoMetricFamily(name.removesuffix("_info"), metric.help)
        for each in readings:
            infos.add_metric([], dict(zip(metric.labels, each.values, strict=True)))
        return infos
    gauges = metrics_core.GaugeMetricFamily(name, metric.help, labels=metric.labels, unit=unit)
    for each in readings:
        gauges.add_metric(each.values, each.value)
    return gauges


def _cumulative(reading: Reading) -> Iterator[tuple[str, float] | tuple[str, float, ClientExemplar]]:
    total = 0.0
    for bound in sorted({*reading.buckets, inf}):
        total += reading.buckets.get(bound, 0.0)
        exemplar = _client_exemplar(reading.exemplars.get(bound))
        if exemplar is None:
            yield _le(bound), total
        else:
            yield _le(bound), total, exemplar


def _le(bound: float) -> str:
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]


def _client_exemplar(exemplar: Exemplar | None) -> ClientExemplar | None:
    if exemplar is None:
        return None
    value, trace_id, when = exemplar
    return ClientExemplar({"trace_id": trace_id}, value, when)
