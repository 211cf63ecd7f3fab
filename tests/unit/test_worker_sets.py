"""Sets of queues: as text, in a file, in Python; and what is said of those that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rf_jobs import WorkerConfig
from rf_jobs.words.config import load_settings
from rf_jobs.words.config_sets import read_sets, sets_as_text
from rf_jobs.words.config_settings import WorkerSet
from rf_jobs.words.errors import ConfigError

MAIL = WorkerSet(name="mail", queues=("emails", "sms"), workers=8, processes=1)
REST = WorkerSet(name="rest", queues={"high": 5, "low": 1})
TEXT = "mail: queues=emails,sms workers=8 processes=1; rest: queues=high=5,low=1"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_same_from_everywhere(folder: Path) -> None:
    (folder / "rf-jobs.toml").write_text(
        """
        [[jobs.worker.sets]]
        name = "mail"
        queues = ["emails", "sms"]
        workers = 8
        processes = 1
        [[jobs.worker.sets]]
        name = "rest"
        queues = {high = 5, low = 1}
        """
    )
    assert load_settings(environ={}).settings.worker.sets == (MAIL, REST)
    (folder / "rf-jobs.toml").write_text("")
    assert load_settings(environ={"RF_JOBS_WORKER_SETS": TEXT}).settings.worker.sets == (MAIL, REST)
    assert load_settings(environ={}, overrides={"jobs.worker.sets": TEXT}).settings.worker.sets == (MAIL, REST)
    listed: Any = WorkerSet(name="mail", queues=["emails", "sms"], workers=8, processes=1)  # type: ignore[arg-type]
    assert WorkerConfig.default().sets(listed, REST).settings.sets == (MAIL, REST)


def test_a_set_is_the_workers_settings_with_its_own_instead() -> None:
    config = WorkerConfig(workers=2, max_concurrent_jobs=3, processes=4, timeout=7, queues=["not", "these"])
    configs = config.sets(MAIL, REST).by_set()
    mail, rest = configs["mail"].settings, configs["rest"].settings
    assert list(configs) == ["mail", "rest"]
    assert (mail.queues, mail.workers, mail.max_concurrent_jobs, mail.processes) == (("emails", "sms"), 8, 3, 1)
    assert (rest.queues, rest.workers, rest.max_concurrent_jobs, rest.processes) == ({"high": 5, "low": 1}, 2, 3, 4)
    assert mail.timeout_seconds == rest.timeout_seconds == 7
    assert mail.sets == ()
    assert config.by_set() == {"": config}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("queues=emails", r"'queues=emails' has no name; write it as mail: queues="),
        ("mail: emails", r"in set 'mail' the word 'emails' is no key=value"),
        ("mail: workers=2", r"set 'mail' names no queues"),
        ("mail: queues=a proceses=2", r"set 'mail' has the unknown key 'proceses'; did you mean 'processes'\?"),
        ("mail: queues=a processes=0", r"set 'mail' has processes = '0'; it must be a whole number from 1"),
        ("mail: queues=a workers=many", r"set 'mail' has workers = 'many'"),
        ("mail: queues=a workers=1 workers=2", r"set 'mail' has workers twice"),
        ("mail: queues=a; mail: queues=b", r"two sets are called 'mail'"),
        ("mail: queues=a,a", r"set 'mail' names a queue twice"),
        ("mail: queues=a=1,b", r"'a=1,b' has weights for some queues only"),
        ("mail: queues=a=0", r"set 'mail' has a weight that is less than 1"),
        ("ma il: queues=a", r"the name of a set is 'ma il'"),
        ("mail: queues=a{b}", r"queue name is 'a\{b\}'"),
        ("mail: queues=a processes=2000", r"more than 1000 processes"),
    ],
)
def test_a_mistake_in_text(folder: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(environ={"RF_JOBS_WORKER_SETS": text})
    assert "(from RF_JOBS_WORKER_SETS)" in str(caught.value)
    assert "expected tables [[jobs.worker.sets]]" in str(caught.value)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("sets = 3", "it is no list of sets"),
        ("sets = [3]", "a set is 3; it needs a name and queues"),
        ('sets = [{name = "a", queues = "b"}]', "set 'a' names no queues"),
        ('sets = [{name = "a", queues = ["b"], workers = true}]', "set 'a' has workers = True"),
        ('sets = [{name = "a", queues = {b = true}}]', "set 'a' has a weight"),
        ('[jobs.worker.sets]\nname = "a"', "it is no list of sets"),
    ],
)
def test_a_mistake_in_a_file(folder: Path, toml: str, message: str) -> None:
    (folder / "rf-jobs.toml").write_text(f"[jobs.worker]\n{toml}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(environ={})
    assert message in str(caught.value)


def test_what_overrides_of_queues_and_sets_stays(folder: Path) -> None:
    environ = {"RF_JOBS_WORKER_SETS": "mail: queues=emails"}
    worker = load_settings(environ=environ, overrides={"jobs.worker.queues": "a"}).settings.worker
    assert (worker.queues, worker.sets) == (("a",), ())
    (folder / "rf-jobs.toml").write_text('[jobs.worker]\nqueues = ["b"]\n')
    worker = load_settings(environ=environ).settings.worker
    assert ([each.name for each in worker.sets], worker.queues) == (["mail"], ("default",))


@pytest.mark.parametrize("origin", ["environ", "overrides"])
def test_queues_beside_sets_belong_to_nobody(folder: Path, origin: str) -> None:
    both: dict[str, Any] = {
        "environ": {"RF_JOBS_WORKER_SETS": "mail: queues=emails", "RF_JOBS_WORKER_QUEUES": "a"},
        "overrides": {"jobs.worker.sets": "mail: queues=emails", "jobs.worker.queues": "a"},
    }
    given: dict[str, Any] = {"environ": {}, origin: both[origin]}
    with pytest.raises(
        ConfigError, match=r"both jobs\.worker\.queues \(from .*\) and jobs\.worker\.sets \(from .*leave one"
    ):
        load_settings(**given)


def test_a_mistake_in_python() -> None:
    with pytest.raises(ConfigError, match=r"worker option sets: two sets are called 'mail'"):
        WorkerConfig(sets=[MAIL, MAIL])


NAMES = st.from_regex(r"\A[a-z][a-z0-9_.-]{0,8}\Z")
NUMBERS = st.none() | st.integers(1, 20)
QUEUES = st.lists(NAMES, min_size=1, max_size=3, unique=True).map(tuple) | st.dictionaries(
    NAMES, st.integers(1, 9), min_size=1, max_size=3
)
SETS = st.builds(WorkerSet, name=NAMES, queues=QUEUES, workers=NUMBERS, max_concurrent_jobs=NUMBERS, processes=NUMBERS)


@given(st.lists(SETS, max_size=3, unique_by=lambda each: each.name).map(tuple))
def test_what_is_written_is_read(sets: tuple[WorkerSet, ...]) -> None:
    assert read_sets(sets_as_text(sets)) == sets


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read_sets(text)
    except Exception as error:
        assert type(error).__name__ in ("ValueError", "InvalidOption")
