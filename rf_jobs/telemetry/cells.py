"""Metric cells for the hot path, and the deltas that carry them to the store.

A cell is looked up once (``store.counter(names.JOBS_FAILED, queue, job_class, reason)``), kept, and then costs an
attribute addition or a bisect. Every few seconds :meth:`MetricStore.take_delta` gives what changed since the last call,
and the store adds it to one hash that the exporter reads back (:mod:`rf_jobs.telemetry.exposition`).

**Fields of that hash.** A field is a compact JSON array; its first element is the name in the table of
:mod:`rf_jobs.telemetry.names` (never with a namespace), then come the label values in the table's order as strings, and
for a histogram one element more: the upper bound of the bucket as a number, or ``"+Inf"``, or ``"sum"``::

    ["jobs_processed_total","emails","SendEmail","success"]     3      a counter's increment
    ["job_duration_seconds","emails","SendEmail",0.05]          2      observations in (the bound before, 0.05]
    ["job_duration_seconds","emails","SendEmail","+Inf"]        1      observations over the last bound
    ["job_duration_seconds","emails","SendEmail","sum"]         9.75   seconds

The bound stands there and not the bucket's index, so that processes with different bounds (another version, an override
for a class) still add up: buckets are not cumulative in the hash, only in the exposition. A new series comes with its
0, so that ``rate()`` sees its first event. Exemplars have the same fields, and the value ``[value, trace id, Unix time]``.

Gauges are of this process and this moment: they are rendered, never flushed. The exporter makes the fleet's gauges from
the workers' heartbeats.

Threads: each addition is one bytecode sequence that CPython with the GIL doesn't interrupt, but creating series isn't
guarded. Use one store from one thread, or create its series before the others start.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from math import isfinite

from rf_jobs.telemetry import names
from rf_jobs.telemetry.names import OVERFLOW, Metric

Exemplar = tuple[float, str, float]
"""Value, trace id (hex), Unix time."""

Series = tuple[str, tuple[str, ...]]
"""A metric's name and its label values."""


class Counter:
    """A number that only grows. ``add`` may be inlined as ``cell.value += n``."""

    __slots__ = ("_taken", "_taken_exemplar", "exemplar", "value")

    def __init__(self) -> None:
        self.value: float = 0
        self.exemplar: Exemplar | None = None
        self._taken: float | None = None
        self._taken_exemplar: Exemplar | None = None

    def add(self, n: float = 1) -> None:
        self.value += n

    def add_traced(self, n: float, trace_id: str, now: float | None = None) -> None:
        """Add, and remember whose trace it was."""
        self.value += n
        self.exemplar = (n, trace_id, time.time() if now is None else now)

    def _take(self, prefix: str, delta: Delta) -> None:
        if self.value != self._taken:
            if not isfinite(self.value):  # Redis refuses it, and the whole flush with it
                self.value = self._taken or 0
            delta.increments[prefix + "]"] = self.value - (self._taken or 0)
            self._taken = self.value
        if self.exemplar is not self._taken_exemplar and self.exemplar is not None:
            delta.exemplars[prefix + "]"] = json.dumps(self.exemplar, separators=(",", ":"))
            self._taken_exemplar = self.exemplar


class Gauge:
    """A number of this process, now."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def set(self, value: float) -> None:
        self.value = value


class Histogram:
    """Counts of observations by size, each at most its bucket's bound, with the last exemplar of each bucket."""

    __slots__ = ("_own_bounds", "_taken", "_taken_exemplars", "_taken_sum", "bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: tuple[float, ...], *, own_bounds: bool = False) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.exemplars: list[Exemplar | None] = [None] * len(self.counts)
        self._own_bounds = own_bounds
        self._taken: list[int] | None = None
        self._taken_sum = 0.0
        self._taken_exemplars: list[Exemplar | None] = list(self.exemplars)

    def observe(self, value: float, trace_id: str = "", now: float | None = None) -> None:
        """Count one observation; with the trace id of its recorded span, also as its bucket's exemplar."""
        i = bisect_left(self.bounds, value)
        self.counts[i] += 1
        self.sum += value
        if trace_id:
            self.exemplars[i] = (value, trace_id, time.time() if now is None else now)

    def _take(self, prefix: str, delta: Delta) -> None:
        if self.counts != self._taken:
            self._take_counts(prefix, delta)
        if self.exemplars != self._taken_exemplars:
            for i, exemplar in enumerate(self.exemplars):
                if exemplar is not None and exemplar is not self._taken_exemplars[i]:
                    field = f"{prefix},{self._bound(i)}]"
                    delta.exemplars[field] = json.dumps(exemplar, separators=(",", ":"))
            self._taken_exemplars = list(self.exemplars)

    def _take_counts(self, prefix: str, delta: Delta) -> None:
        new = self._taken is None
        taken = self._taken or [0] * len(self.counts)
        if not isfinite(self.sum):  # Redis refuses it, and the whole flush with it
            self.sum = self._taken_sum
        counts, total = list(self.counts), self.sum
        for i, count in enumerate(counts):
            if count != taken[i] or (new and self._own_bounds):
                delta.increments[f"{prefix},{self._bound(i)}]"] = count - taken[i]
        delta.increments[prefix + ',"sum"]'] = total - self._taken_sum
        self._taken, self._taken_sum = counts, total

    def _bound(self, i: int) -> str:
        return repr(self.bounds[i]) if i < len(self.bounds) else '"+Inf"'


Cell = Counter | Gauge | Histogram


@dataclass
class Delta:
    """What changed since the delta before. Plain data: it can be pickled, encoded, kept and sent again as it is."""

    increments: dict[str, float] = field(default_factory=dict)
    exemplars: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.increments or self.exemplars)


class MetricStore:
    """The cells of one process, with a cap on their number.

    Over ``max_series_per_metric`` series of a metric, or ``max_job_classes`` classes, a new series goes to
    ``job_class="_other"`` (and, where even those are too many, to ``_other`` in every free label); each such look-up counts as
    ``rf_telemetry_dropped_total{kind="series"}``. Lives as long as its process; a forked child starts its own.
    """

    def __init__(self, *, max_series_per_metric: int = 1000, max_job_classes: int = 200) -> None:
        self._cells: dict[str, dict[tuple[str, ...], Cell]] = {}
        self._metrics: dict[str, Metric] = {}
        self._travelling: list[tuple[str, Counter | Histogram]] = []
        self._classes: set[str] = set()
        self._max_series = max_series_per_metric
        self._max_classes = max_job_classes
        self._headroom = max(10, max_series_per_metric // 10)
        self._dropped = self.counter(names.TELEMETRY_DROPPED, "series")

    def counter(self, metric: Metric, *values: str) -> Counter:
        cell = self._find(metric, "counter", values, None)
        assert isinstance(cell, Counter)  # noqa: S101 - _find has checked the kind
        return cell

    def gauge(self, metric: Metric, *values: str) -> Gauge:
        cell = self._find(metric, "gauge", values, None)
        assert isinstance(cell, Gauge)  # noqa: S101 - as above
        return cell

    def histogram(self, metric: Metric, *values: str, bounds: tuple[float, ...] | None = None) -> Histogram:
        """The histogram's cell; ``bounds`` override the table's for this series, if it is new."""
        cell = self._find(metric, "histogram", values, bounds)
        assert isinstance(cell, Histogram)  # noqa: S101 - as above
        return cell

    def precreate(self, metrics: Iterable[Metric], pairs: Iterable[tuple[str, str]] = ()) -> None:
        """Create at 0 every series that can be known: these (queue, job class) pairs times the enumerated labels.

        Metrics with a label of free values are left for their first event.
        """
        pairs = list(pairs)
        for metric in metrics:
            for values in _known_series(metric, pairs):
                self._find(metric, metric.kind, values, None)

    def take_delta(self) -> Delta:
        """What changed since the last call, to be added to the store's hash exactly once.

        Keep a delta until its flush is known to have been counted, and take no other before: what happens meanwhile
        gathers in the cells.
        """
        delta = Delta()
        for prefix, cell in self._travelling:
            cell._take(prefix, delta)  # noqa: SLF001 - one module
        return delta

    def cells(self) -> Iterator[tuple[Metric, tuple[str, ...], Cell]]:
        """Every series with its cell, metric by metric; the cells are live."""
        for name, cells in list(self._cells.items()):
            for values, cell in list(cells.items()):
                yield self._metrics[name], values, cell

    def _find(self, metric: Metric, kind: str, values: tuple[str, ...], bounds: tuple[float, ...] | None) -> Cell:
        cells = self._cells.get(metric.name)
        cell = cells.get(values) if cells is not None else None
        if cell is None:
            cell = self._create(metric, values, bounds)
        if metric.kind != kind:
            raise TypeError(f"{metric.name} is a {metric.kind}, not a {kind}; ask the store for a {metric.kind}")
        return cell

    def _create(self, metric: Metric, values: tuple[str, ...], bounds: tuple[float, ...] | None) -> Cell:
        if len(values) != len(metric.labels):
            raise ValueError(f"{metric.name} has the labels {metric.labels}, got {len(values)} values: {values!r}")
        cells = self._cells.setdefault(metric.name, {})
        self._metrics[metric.name] = metric
        values = self._within_cap(metric, values, cells)
        if values in cells:
            return cells[values]
        if "job_class" in metric.labels:
            self._classes.add(values[metric.labels.index("job_class")])
        cells[values] = cell = _new_cell(metric, bounds)
        if not isinstance(cell, Gauge):
            self._travelling.append((json.dumps([metric.name, *values], separators=(",", ":"))[:-1], cell))
        return cell

    def _within_cap(
        self, metric: Metric, values: tuple[str, ...], cells: dict[tuple[str, ...], Cell]
    ) -> tuple[str, ...]:
        if len(cells) < self._max_series and not self._one_class_too_many(metric, values):
            return values
        free = [label for label in metric.labels if label not in metric.values]
        if not free:
            return values
        self._dropped.add()
        wider = _widened(metric, values, {"job_class"})
        if wider in cells or (wider != values and len(cells) < self._max_series + self._headroom):
            return wider
        return _widened(metric, values, set(free))

    def _one_class_too_many(self, metric: Metric, values: tuple[str, ...]) -> bool:
        if "job_class" not in metric.labels or len(self._classes) < self._max_classes:
            return False
        return values[metric.labels.index("job_class")] not in self._classes


def _widened(metric: Metric, values: tuple[str, ...], labels: set[str]) -> tuple[str, ...]:
    pairs = zip(metric.labels, values, strict=True)
    return tuple(OVERFLOW if label in labels else value for label, value in pairs)


def _new_cell(metric: Metric, bounds: tuple[float, ...] | None) -> Cell:
    if metric.kind == "counter":
        return Counter()
    if metric.kind == "histogram":
        usual = metric.buckets or ()
        return Histogram(bounds or usual, own_bounds=bounds is not None and bounds != usual)
    return Gauge()


def _known_series(metric: Metric, pairs: list[tuple[str, str]]) -> Iterator[tuple[str, ...]]:
    free = [label for label in metric.labels if label not in metric.values]
    if free == ["queue", "job_class"]:
        heads: list[tuple[str, ...]] = list(dict.fromkeys(pairs))
    elif free == ["queue"]:
        heads = [(queue,) for queue in dict.fromkeys(queue for queue, _ in pairs)]
    elif not free:
        heads = [()]
    else:
        return
    choices = [metric.values[label] for label in metric.labels if label in metric.values]
    for head, tail in product(heads, product(*choices)):
        yield (*head, *tail)
