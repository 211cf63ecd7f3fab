"""``WorkerConfig``: what it takes, and what it says of the rest."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest

from rf_jobs import WorkerConfig
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
