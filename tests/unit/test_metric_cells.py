from __future__ import annotations

import json
import pickle
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.process_collector import ProcessCollector

from rf_jobs.telemetry import names
from rf_jobs.telemetry.cells import Delta, MetricStore
from rf_jobs.telemetry.exposition import MetricsCollector, Reading, Together, read_flushed, render, store_readings
from rf_jobs.telemetry.names import OVERFLOW, Metric

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

label_values = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["sum", "+Inf", '"', "\\", "\n"]
)
observations = st.floats(min_value=0, max_value=1e6)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), label_values, label_values, st.integers(0, 1000)),
        st.tuples(st.just("observe"), label_values, label_values, observations),
        st.tuples(st.just("flush")),
    ),
    max_size=40,
)


def samples(collector: MetricsCollector, accept: str = "") -> Samples:
    body, _ = render(collector, accept)
    families: Any = (parse_openmetrics if accept else parse_text)(body.decode())
    found = [sample for family in families for sample in family.samples]
    keyed = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}
    assert len(keyed) == len(found), "no series twice"
    return keyed


def add_up(redis_hash: dict[str, float], delta: Delta) -> None:
    for field, increment in delta.increments.items():
        redis_hash[field] = redis_hash.get(field, 0) + increment


def aggregate(store_hash: dict[str, float], exemplars: dict[str, str] | None = None) -> MetricsCollector:
    flushed = read_flushed({field: repr(value) for field, value in store_hash.items()}, exemplars)
    assert flushed.ignored == 0
    return MetricsCollector(lambda: flushed.readings)


def apply(store: MetricStore, operation: tuple[Any, ...]) -> None:
    if operation[0] == "add":
        store.counter(names.JOBS_FAILED, operation[1], operation[2], "timeout").add(operation[3])
    else:
        store.histogram(names.JOB_DURATION, operation[1], operation[2]).observe(operation[3])


@given(operations)
def test_deltas_sum_to_the_totals_and_read_back_unambiguously(steps: list[tuple[Any, ...]]) -> None:
    store, redis_hash = MetricStore(), dict[str, float]()
    for step in steps:
        if step[0] == "flush":
            add_up(redis_hash, store.take_delta())
        else:
            apply(store, step)
    add_up(redis_hash, store.take_delta())
    assert not store.take_delta()
    assert samples(aggregate(redis_hash)) == pytest.approx(samples(MetricsCollector(store)))


@given(operations)
def test_what_is_rendered_parses_back_in_both_formats(steps: list[tuple[Any, ...]]) -> None:
    store = MetricStore()
    for step in (step for step in steps if step[0] != "flush"):
        apply(store, step)
    text, openmetrics = samples(MetricsCollector(store)), samples(MetricsCollector(store), OPENMETRICS)
    assert text == openmetrics
    for reading in store_readings(store):
        labels = frozenset(zip(reading.metric.labels, reading.values, strict=True))
        name = reading.metric.name
        if reading.metric.kind == "counter":
            assert text[name, labels] == reading.value
        else:
            assert text[f"{name}_count", labels] == sum(reading.buckets.values())
            assert text[f"{name}_sum", labels] == pytest.approx(reading.value)


@given(st.lists(observations, min_size=1))
def test_buckets_are_cumulative_and_their_bounds_inclusive(values: list[float]) -> None:
    store = MetricStore()
    cell = store.histogram(names.JOB_QUEUE_WAIT, "q", "C")
    for value in values:
        cell.observe(value)
    found = samples(MetricsCollector(store))
    for bound in (*names.WAIT, inf):
        le = "+Inf" if bound == inf else str(bound)
        labels = frozenset({("queue", "q"), ("job_class", "C"), ("le", le)})
        assert found["job_queue_wait_seconds_bucket", labels] == sum(value <= bound for value in values)


def test_several_processes_add_up_even_with_other_bounds() -> None:
    redis_hash: dict[str, float] = {}
    for bounds in (None, (0.1, 7.0)):
        store = MetricStore()
        cell = store.histogram(names.JOB_DURATION, "q", "C", bounds=bounds)
        for value in (0.05, 6.0, 9000.0):
            cell.observe(value)
        add_up(redis_hash, store.take_delta())
    found = samples(aggregate(redis_hash))
    buckets = {dict(labels)["le"]: value for (name, labels), value in found.items() if name.endswith("_bucket")}
    assert buckets["0.1"] == 2
    assert buckets["7.0"] == 3, "6 s of the other process stand in its bucket up to 10 s"
    assert buckets["10.0"] == 4
    assert buckets["+Inf"] == 6


def test_a_flush_carries_only_what_changed_and_survives_pickling() -> None:
    store = MetricStore()
    counter = store.counter(names.JOBS_RETRIED, "q", "C")
    store.take_delta()
    counter.add(2)
    counter.value += 1
    delta = store.take_delta()
    assert delta.increments == {'["jobs_retried_total","q","C"]': 3}
    assert pickle.loads(pickle.dumps(delta)) == delta
    assert not store.take_delta()


def test_fields_are_as_documented() -> None:
    store = MetricStore()
    cell = store.histogram(names.JOB_DURATION, "emails", "SendEmail")
    for value in (0.03, 9999.0):
        cell.observe(value)
    fields = [json.loads(field) for field in store.take_delta().increments]
    head = ["job_duration_seconds", "emails", "SendEmail"]
    assert [*head, 0.05] in fields
    assert [*head, "+Inf"] in fields
    assert [*head, "sum"] in fields


def test_a_new_series_is_flushed_and_shown_at_zero() -> None:
    store = MetricStore()
    store.precreate(names.measured_by("worker", "dispatcher"), [("q", "C"), ("q", "D")])
    redis_hash: dict[str, float] = {}
    add_up(redis_hash, store.take_delta())
    found = samples(aggregate(redis_hash))
    for outcome in names.OUTCOMES:
        assert found["jobs_processed_total", frozenset({("queue", "q"), ("job_class", "D"), ("outcome", outcome)})] == 0
    assert found["job_duration_seconds_count", frozenset({("queue", "q"), ("job_class", "C")})] == 0
    assert found["worker_fetches_total", frozenset({("result", "empty")})] == 0
    assert not any(name == "rf_redis_op_errors_total" for name, _ in found), "free values wait for their first event"
    assert not any(name == "worker_slots" for name, _ in found), "gauges don't travel"


def test_exemplars_travel_and_are_shown_in_openmetrics_only() -> None:
    store = MetricStore()
    cell = store.histogram(names.JOB_DURATION, "q", "C")
    cell.observe(0.03, "a" * 32, 1700000000.0)
    cell.observe(0.04, "b" * 32, 1700000001.0)
    cell.observe(0.04)
    store.counter(names.JOBS_FAILED, "q", "C", "timeout").add_traced(1, "c" * 32, 1700000002.0)
    delta = store.take_delta()
    assert delta.exemplars == {
        '["job_duration_seconds","q","C",0.05]': f'[0.04,"{"b" * 32}",1700000001.0]',
        '["jobs_failed_total","q","C","timeout"]': f'[1,"{"c" * 32}",1700000002.0]',
    }
    assert not store.take_delta().exemplars
    body, content_type = render(aggregate(delta.increments, delta.exemplars), OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.decode().endswith("# EOF\n")
    families: Any = parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]
    shown = {sample.name: sample.exemplar for family in families for sample in family.samples if sample.exemplar}
    assert shown["job_duration_seconds_bucket"].labels == {"trace_id": "b" * 32}
    assert shown["jobs_failed_total"].labels == {"trace_id": "c" * 32}
    text, content_type = render(aggregate(delta.increments, delta.exemplars))
    assert content_type.startswith("text/plain; version=0.0.4")
    assert b"bbbb" not in text


def test_an_exemplar_that_comes_again_travels_again() -> None:
    store = MetricStore()
    cell = store.histogram(names.JOB_DURATION, "q", "C")
    for _ in range(2):
        cell.observe(0.03, "a" * 32, 1.0)
        assert len(store.take_delta().exemplars) <= 1
    cell.observe(0.03, "a" * 32, 2.0)
    assert list(store.take_delta().exemplars.values()) == [f'[0.03,"{"a" * 32}",2.0]']


def test_over_the_cap_classes_gather_in_other_and_it_is_counted() -> None:
    store = MetricStore(max_series_per_metric=20)
    for i in range(50):
        store.counter(names.JOBS_DISPATCHED, "q", f"C{i}").add()
    series = {values: cell for metric, values, cell in store.cells() if metric is names.JOBS_DISPATCHED}
    assert len(series) == 21
    assert store.counter(names.JOBS_DISPATCHED, "q", OVERFLOW).value == 30
    assert store.counter(names.TELEMETRY_DROPPED, "series").value == 30
    assert store.counter(names.JOBS_DISPATCHED, "q", "C3").value == 1, "those that are there stay"


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=300))
def test_no_flood_of_queues_and_classes_gets_over_cap_and_headroom(pairs: list[tuple[int, int]]) -> None:
    store = MetricStore(max_series_per_metric=30, max_job_classes=10)
    for queue, job_class in pairs:
        store.counter(names.JOBS_DISPATCHED, f"q{queue}", f"C{job_class}").add()
        store.histogram(names.JOB_DISPATCH_DURATION, f"q{queue}").observe(0.1)
        store.counter(names.REDIS_OP_ERRORS, "fetch", f"E{queue}").add()
    by_metric: dict[str, list[tuple[str, ...]]] = {}
    for metric, values, _ in store.cells():
        by_metric.setdefault(metric.name, []).append(values)
    assert all(len(series) <= 30 + 10 + 1 for series in by_metric.values())
    classes = {values[1] for values in by_metric.get("jobs_dispatched_total", [])} - {OVERFLOW}
    assert len(classes) <= 10
    total = sum(reading.value for reading in store_readings(store) if reading.metric is names.JOBS_DISPATCHED)
    assert total == len(pairs), "nothing is dropped, only merged"


def test_wrong_use_says_what_is_wrong() -> None:
    store = MetricStore()
    with pytest.raises(ValueError, match=r"jobs_retried_total has the labels .* got 1 values"):
        store.counter(names.JOBS_RETRIED, "q")
    with pytest.raises(TypeError, match="job_duration_seconds is a histogram, not a counter"):
        store.counter(names.JOB_DURATION, "q", "C")


def test_numbers_that_redis_refuses_never_reach_a_flush() -> None:
    store = MetricStore()
    histogram, counter = store.histogram(names.JOB_DURATION, "q", "C"), store.counter(names.WORKER_BUSY_SECONDS)
    histogram.observe(2.0)
    counter.add(3)
    store.take_delta()
    for odd in (nan, inf):
        histogram.observe(odd)
        counter.add(odd)
        increments = store.take_delta().increments
        assert all(abs(value) < inf for value in increments.values())
    histogram.observe(1.0)
    assert store.take_delta().increments['["job_duration_seconds","q","C","sum"]'] == 1.0


@pytest.mark.parametrize(
    "field",
    [
        "rubbish", "[]", "{}", "3", '["unknown_total"]', '["jobs_retried_total","q"]', '["jobs_retried_total","q",3]',
        '["jobs_retried_total","q","C","more"]', '["job_duration_seconds","q","C"]', '["job_duration_seconds","q","C",true]',
        '["job_duration_seconds","q","C","0.05"]', '["job_duration_seconds","q","C",NaN]', "[[]]",
        '["job_duration_seconds","q","C",' + "9" * 400 + "]",
    ],
)  # fmt: skip
def test_odd_fields_are_counted_and_disturb_nothing(field: str) -> None:
    flushed = read_flushed({field: "1", '["jobs_retried_total","q","C"]': "2"}, {field: "[1]"})
    assert flushed.ignored == 2
    found = {reading.values: reading.value for reading in flushed.readings if reading.metric is names.JOBS_RETRIED}
    assert found == {("q", "C"): 2.0}


def test_values_that_are_no_numbers_are_counted() -> None:
    good = '["jobs_retried_total","q","C"]'
    assert read_flushed({good: "many"}).ignored == 1
    assert read_flushed({good: "1"}, {good: '{"a":1}'}).ignored == 1


def test_sources_are_summed_and_renamed() -> None:
    store = MetricStore()
    store.counter(names.TELEMETRY_DROPPED, "span").add(2)
    store.gauge(names.QUEUE_DEPTH, "q", "ready").set(7)
    other = [
        Reading(names.TELEMETRY_DROPPED, ("span",), 3),
        Reading(names.BUILD_INFO, ("1.0", "3.11", "7.0")),
        Reading(names.WORKERS, ("running",), 2),
    ]
    found = samples(MetricsCollector(store, lambda: other, namespace="acme"))
    assert found["acme_rf_telemetry_dropped_total", frozenset({("kind", "span")})] == 5
    assert found["acme_queue_depth", frozenset({("queue", "q"), ("state", "ready")})] == 7
    build = frozenset({("version", "1.0"), ("python", "3.11"), ("redis", "7.0")})
    assert found["acme_rf_build_info", build] == 1
    with pytest.raises(ValueError, match="namespace is"):
        MetricsCollector(store, namespace="no-good")


def test_every_metric_of_the_table_can_be_rendered_and_parsed() -> None:
    def one(metric: Metric) -> Reading:
        buckets = dict.fromkeys((*(metric.buckets or ()), inf), 1.0) if metric.kind == "histogram" else {}
        return Reading(metric, tuple("x" for _ in metric.labels), 1.0, buckets)

    collector = MetricsCollector(lambda: [one(metric) for metric in names.METRICS])
    for accept, parse in (("", parse_text), (OPENMETRICS, parse_openmetrics)):
        families: Any = parse(render(collector, accept)[0].decode())
        shown = {sample.name for family in families for sample in family.samples}
        assert shown == {name for metric in names.METRICS for name in metric.series}


def test_other_collectors_join_in() -> None:
    body, _ = render(Together(MetricsCollector(MetricStore()), ProcessCollector(registry=None)))
    assert b"process_resident_memory_bytes" in body
    assert b"rf_telemetry_dropped_total" in body
