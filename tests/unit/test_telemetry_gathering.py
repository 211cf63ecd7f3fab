"""Several processes' metrics as one page: what is added, what is kept of those that ended, what a label tells apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rf_jobs.telemetry import gathering, names
from rf_jobs.telemetry.cells import MetricStore
from rf_jobs.telemetry.exposition import Reading
from rf_jobs.telemetry.gathering import Gathering, Source, _Labelled
from rf_jobs.telemetry.sharing import LAST, Share, Shared, SharedReading

DONE = 'jobs_processed_total{job_class="C",outcome="success",queue="q"}'


class Process:
    """A process that counts and gives."""

    def __init__(self, folder: Path, number: int) -> None:
        self.cells = MetricStore()
        self.source = Source(str(folder / str(number)), str(number), True, 1)
        self.share = Share(self.cells, self.source.readings, lambda: "9.9")

    def done(self, count: int) -> None:
        self.cells.counter(names.JOBS_PROCESSED, "q", "C", "success").value += count
        for _ in range(count):
            self.cells.histogram(names.JOB_DURATION, "q", "C").observe(0.02)


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Process, Process]]:
    first, second = Process(tmp_path, 1), Process(tmp_path, 2)
    for each in (first, second):
        await each.share.start()
    yield first, second
    for each in (first, second):
        await each.share.aclose()


async def page(gathered: Gathering, *sources: Source) -> dict[str, float]:
    body, _ = await gathered.page(sources, [Reading(names.SUPERVISOR_PROCESSES, ("wanted",), 2)], "")
    found = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def named(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


async def test_counts_are_added_and_never_fall(two: tuple[Process, Process], tmp_path: Path) -> None:
    first, second = two
    gathered = Gathering(str(tmp_path), "")
    first.done(3)
    second.done(4)
    found = await page(gathered, first.source, second.source)
    assert found[DONE] == 7
    assert found['job_duration_seconds_bucket{job_class="C",le="0.025",queue="q"}'] == 7
    assert found['rf_supervisor_processes{state="wanted"}'] == 2
    first.done(2)
    await first.share.aclose()
    assert named(tmp_path) == [f"1{LAST}", "2"]
    assert (await page(gathered, first.source, second.source))[DONE] == 9, "its last word is in, and in once"
    assert (await page(gathered, first.source, second.source))[DONE] == 9, "though it is still listed"
    assert (await page(gathered, second.source))[DONE] == 9
    second.done(1)
    assert (await page(gathered, second.source))[DONE] == 10


async def test_one_that_was_killed_keeps_what_was_last_seen(two: tuple[Process, Process], tmp_path: Path) -> None:
    first, second = two
    gathered = Gathering(str(tmp_path), "")
    first.done(3)
    assert (await page(gathered, first.source, second.source))[DONE] == 3
    assert (await page(gathered, second.source))[DONE] == 3
    assert (await page(gathered))[DONE] == 3


async def test_one_that_lived_between_two_scrapes_counts(two: tuple[Process, Process], tmp_path: Path) -> None:
    first, second = two
    gathered = Gathering(str(tmp_path), "")
    first.done(5)
    await first.share.aclose()
    assert (await page(gathered, second.source))[DONE] == 5


async def test_gauges_are_of_the_living_and_a_ratio_is_their_mean(two: tuple[Process, Process], tmp_path: Path) -> None:
    first, second = two
    for process, slots, used in ((first, 30, 1.0), (second, 10, 0.2)):
        process.cells.gauge(names.WORKER_SLOTS, "q").set(slots)
        process.cells.gauge(names.WORKER_UTILIZATION).set(used)
    gathered = Gathering(str(tmp_path), "")
    sources = [
        Source(each.source.readings, each.source.place, True, slots) for each, slots in ((first, 30), (second, 10))
    ]
    found = await page(gathered, *sources)
    assert found['worker_slots{queue="q"}'] == 40
    assert found["worker_utilization{}"] == pytest.approx(0.8)
    found = await page(gathered, sources[1])
    assert found['worker_slots{queue="q"}'] == 10
    assert found["worker_utilization{}"] == pytest.approx(0.2)


async def test_the_processes_own_metrics_are_told_apart_by_place(two: tuple[Process, Process], tmp_path: Path) -> None:
    first, second = two
    leaving = Source(second.source.readings, "1", False, 1)
    found = await page(Gathering(str(tmp_path), "shop"), first.source, leaving)
    assert found['process_max_fds{process="1"}'] > 0, "of the one that has the place"
    assert not [name for name in found if "_created" in name]
    assert found['shop_rf_supervisor_processes{state="wanted"}'] == 2


def test_an_applications_own_label_of_that_name_is_kept() -> None:
    text = b'# TYPE x gauge\nx{process="theirs",k="v"} 1\n# TYPE c_total counter\nc_total 2\n# TYPE c_created gauge\nc_created 1\n'
    families = {family.name: family for family in _Labelled({"a/0": text, "a/1": text}).collect()}
    assert set(families) == {"x", "c"}
    assert [sample.labels for sample in families["x"].samples] == [
        {"exported_process": "theirs", "k": "v", "process": place} for place in ("a/0", "a/1")
    ]


async def test_what_another_version_counts_is_left_out(tmp_path: Path) -> None:
    odd = [
        SharedReading("jobs_invented_total", (), 1.0, {}, {}),
        SharedReading("jobs_processed_total", ("q",), 1.0, {}, {}),
        SharedReading("jobs_processed_total", ("q", "C", "success"), 2.0, {}, {}),
    ]
    (tmp_path / f"1{LAST}").write_bytes(msgspec.msgpack.encode(Shared(odd)))
    (tmp_path / f"2{LAST}").write_bytes(b"damaged")
    found = await page(Gathering(str(tmp_path), ""))
    assert {name: value for name, value in found.items() if name.startswith("jobs_")} == {DONE: 2.0}
    assert named(tmp_path) == []


async def test_one_that_does_not_answer_holds_nobody_up(
    two: tuple[Process, Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "ASK_SECONDS", 0.05)
    silent = asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silent.wait()
        writer.close()

    server = await asyncio.start_unix_server(hang, str(tmp_path / "3"))
    first, _ = two
    first.done(1)
    found = await page(Gathering(str(tmp_path), ""), first.source, Source(str(tmp_path / "3"), "3", True, 1))
    assert found[DONE] == 1
    silent.set()
    server.close()
    await server.wait_closed()
