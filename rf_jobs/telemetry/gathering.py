"""The metrics of several worker processes as one page.

What rf-jobs measures is added up: counters and histograms with those of processes that have ended, so that no sum falls when
one is replaced; gauges over those that live, a ratio as the mean by slots. What prometheus_client's own registry has in each
process (its memory, the application's metrics) cannot be added without knowing it, and gets a label ``process``, the place in
which it runs. Of a process that was killed, what it counted since the last scrape is lost here; the ledger has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from prometheus_client import metrics_core
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from rf_jobs.telemetry import names
from rf_jobs.telemetry.exposition import MetricsCollector, Reading, Together, added, build_info, render
from rf_jobs.telemetry.sharing import LAST, Shared

log = logging.getLogger("rf_jobs.telemetry")
ASK_SECONDS = 2.0
LABEL = "process"
Series = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class Source:
    """A process that is asked."""

    readings: str
    """The path of its socket."""
    place: str
    serving: bool
    """Whether it has the place alone, and so the label."""
    slots: int


class Gathering:
    """Asks whenever it is scraped, and remembers the counts of those that have ended: in ``folder`` are the sockets, and what
    processes leave. One scrape at a time."""

    def __init__(self, folder: str, namespace: str) -> None:
        self._folder = Path(folder)
        self._namespace = namespace
        self._known: dict[str, Shared] = {}
        """The last answer of each that may still live."""
        self._past: dict[Series, Reading] = {}
        """The counts of those that have ended."""
        self._ended: set[str] = set()
        """Whose last counts are in the past, though the supervisor has not said so yet."""

    async def page(self, sources: Sequence[Source], own: Iterable[Reading], accept: str) -> tuple[bytes, str]:
        """Body and content type; ``own`` is what the supervisor says of itself."""
        await self._ask(sources)
        return await asyncio.to_thread(self._render, sources, list(own), accept)

    async def _ask(self, sources: Sequence[Source]) -> None:
        paths = [source.readings for source in sources if source.readings]
        answers = await asyncio.gather(*(_answer(path) for path in paths if path not in self._ended))
        self._known |= {path: shared for path, shared in answers if shared is not None}
        for file in self._folder.glob(f"*{LAST}"):
            path = str(file).removesuffix(LAST)
            with contextlib.suppress(OSError, msgspec.DecodeError):
                self._known[path] = msgspec.msgpack.decode(file.read_bytes(), type=Shared)
            self._bury(path)
            file.unlink()
        for path in set(self._known) - set(paths):
            self._bury(path)
        self._ended &= set(paths)

    def _bury(self, path: str) -> None:
        self._ended.add(path)
        shared = self._known.pop(path, None)
        for reading in _read(shared) if shared is not None else ():
            if reading.metric.kind in ("counter", "histogram"):
                _add(self._past, reading)

    def _render(self, sources: Sequence[Source], own: list[Reading], accept: str) -> tuple[bytes, str]:
        living = [(source, self._known[source.readings]) for source in sources if source.readings in self._known]
        versions = [build_info(shared.server) for _, shared in living[:1]]
        ours = MetricsCollector(lambda: [*versions, *self._sums(living), *own], namespace=self._namespace)
        others = {source.place: shared.others for source, shared in living if source.serving}
        return render(Together(ours, _Labelled(others)), accept)

    def _sums(self, living: Sequence[tuple[Source, Shared]]) -> Iterable[Reading]:
        total = dict(self._past)
        slots = sum(source.slots for source, _ in living) or 1
        for source, shared in living:
            for reading in _read(shared):
                if reading.metric.unit == "ratio":
                    reading.value *= source.slots / slots
                _add(total, reading)
        return total.values()


def _add(total: dict[Series, Reading], reading: Reading) -> None:
    key = reading.metric.name, reading.values
    known = total.get(key)
    if known is None:
        total[key] = reading
    elif reading.metric.kind == "gauge":
        total[key] = Reading(reading.metric, reading.values, known.value + reading.value)
    else:
        total[key] = added(known, reading)


def _read(shared: Shared) -> Iterator[Reading]:
    for each in shared.ours:
        metric = names.BY_NAME.get(each.name)
        if metric is not None and len(metric.labels) == len(each.values):  # a process may be of another version
            yield Reading(metric, each.values, each.value, dict(each.buckets), dict(each.exemplars))


async def _answer(path: str) -> tuple[str, Shared | None]:
    """What the process there says; None where it does not answer: it may be gone, or busy in C code."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return path, msgspec.msgpack.decode(await reader.read(), type=Shared)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, msgspec.DecodeError):
        return path, None


class _Labelled(Collector):
    """Families of several processes' registries, each sample with the place of its process."""

    def __init__(self, texts: dict[str, bytes]) -> None:
        self._texts = texts

    def collect(self) -> Iterator[metrics_core.Metric]:
        families: dict[str, metrics_core.Metric] = {}
        for place, text in sorted(self._texts.items()):
            for family in text_string_to_metric_families(text.decode()):
                if family.name.endswith("_created"):  # of a counter: not a family of its own in every format
                    continue
                known = families.setdefault(
                    family.name, metrics_core.Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {(f"exported_{LABEL}" if name == LABEL else name): v for name, v in sample.labels.items()}
                    known.samples.append(sample._replace(labels={**labels, LABEL: place}))
        yield from families.values()
