"""``WorkerConfig``: what it takes, and what it says of the rest."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any, get_type_hints

import pytest

from rf_jobs import WorkerConfig, WorkerSet
from rf_jobs.words.config_settings import WorkerSettings
from rf_jobs.words.errors import ConfigError
from rf_jobs.worker import config


def test_a_number_instead_of_settings() -> None:
    wrong: Any = 4
    with pytest.raises(ConfigError, match=r"settings is 4; .*WorkerConfig\(workers=4\)"):
        WorkerConfig(wrong)


def test_the_typed_keywords_are_those_that_are_taken() -> None:
    taken = {*config._DURATIONS, *config._PLAIN, "queues", "sets"}
    assert set(get_type_hints(config.WorkerOptions)) == taken
    assert {config._DURATIONS.get(name, name) for name in taken} == set(get_type_hints(WorkerSettings))


@pytest.mark.parametrize(
    ("option", "value", "setting"),
    [
        ("workers", 4, 4),
        ("queues", ["a", "b", "a"], ("a", "b")),
        ("queues", {"a": 5, "b": 1}, {"a": 5, "b": 1}),
        ("timeout", timedelta(minutes=2), 120.0),
        ("sleep", 0.5, 0.5),
        ("max_concurrent_jobs", 7, 7),
        ("processes", 3, 3),
        ("shutdown_timeout", 40, 40.0),
        ("ageing", timedelta(minutes=10), 600.0),
        ("lease", 20, 20.0),
        ("max_crashes", 5, 5),
        ("park_ttl", timedelta(days=1), 86_400.0),
        ("max_prefetch", 0, 0),
        ("grace", 2, 2.0),
        ("max_memory_mb", 512, 512),
        ("max_jobs", 1000, 1000),
        ("max_age", timedelta(hours=6), 21_600.0),
        ("sets", (WorkerSet(name="one", queues=("a",)),), (WorkerSet(name="one", queues=("a",)),)),
    ],
)
def test_a_method_says_what_its_keyword_says(option: str, value: Any, setting: Any) -> None:
    before = WorkerConfig.default()
    method = getattr(before, option)
    changed = method(*value) if option == "sets" else method(value)
    assert changed.settings == WorkerConfig(**{option: value}).settings
    name = config._DURATIONS.get(option, option)
    assert getattr(changed.settings, name) == setting
    assert before.settings == WorkerSettings(), "it answers with a changed copy"


def test_where_the_metrics_are_served() -> None:
    settings = WorkerConfig().http(9450, "0.0.0.0").settings
    assert (settings.http_port, settings.http_host) == (9450, "0.0.0.0")


def test_the_order_of_queues() -> None:
    strict = config.QueueOrder(("high", "low"), "default")
    assert {strict.next() for _ in range(50)} == {("high", "low")}
    assert config.QueueOrder((), "default").next() == ("default",)
    weighted = config.QueueOrder({"high": 9, "low": 1}, "default")
    first = Counter(weighted.next()[0] for _ in range(4_000))
    assert set(first) == {"high", "low"}, "no queue starves"
    assert 0.85 < first["high"] / 4_000 < 0.95
