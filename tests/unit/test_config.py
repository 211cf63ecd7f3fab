"""Settings: where they come from, what wins, and what an error says."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rf_jobs.words.config import Origin, Settings, load_settings, mask_url
from rf_jobs.words.config_keys import KEYS, VARIABLES
from rf_jobs.words.config_values import convert, expected_form
from rf_jobs.words.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------ what wins


def test_defaults(folder: Path) -> None:
    loaded = load_settings(environ={})
    assert loaded.path is None
    assert loaded.settings.jobs == Settings().jobs
    assert loaded.settings.worker.queues == ("default",)
    assert {entry.origin for entry in loaded.entries.values()} == {Origin("default")}
    assert list(loaded.entries) == list(KEYS)


def test_file_then_variable_then_argument(folder: Path) -> None:
    file = written(
        folder / "rf-jobs.toml", "[jobs]\nmax_attempts = 5\nbackoff_seconds = 1\n[jobs.worker]\nprocesses = 2\n"
    )
    environ = {"RF_JOBS_BACKOFF_SECONDS": "2", "RF_JOBS_WORKER_PROCESSES": "3", "PATH": "/bin"}
    loaded = load_settings(environ=environ, overrides={"jobs.worker.processes": 4, "jobs.worker.workers": None})
    assert loaded.settings.jobs.max_attempts == 5
    assert loaded.settings.jobs.backoff_seconds == 2.0
    assert loaded.settings.worker.processes == 4
    assert loaded.path == file
    origins = {name: str(entry.origin) for name, entry in loaded.entries.items() if entry.origin.kind != "default"}
    assert origins == {
        "jobs.max_attempts": str(file),
        "jobs.backoff_seconds": "RF_JOBS_BACKOFF_SECONDS",
        "jobs.worker.processes": "argument",
    }


def test_the_environment_is_read_by_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RF_JOBS_NAMESPACE", "other")
    assert load_settings().settings.jobs.namespace == "other"


def test_files_in_their_order(folder: Path) -> None:
    written(folder / "pyproject.toml", '[project]\nname = "x"\n[tool.rf-jobs.jobs]\nnamespace = "third"\n')
    assert load_settings(environ={}).settings.jobs.namespace == "third"
    written(folder / "config/default.toml", '[database]\nurl = "x"\n[jobs]\nnamespace = "second"\n')
    assert load_settings(environ={}).settings.jobs.namespace == "second"
    written(folder / "rf-jobs.toml", '[jobs]\nnamespace = "first"\n')
    assert load_settings(environ={}).settings.jobs.namespace == "first"
    named = written(folder / "named.toml", '[jobs]\nnamespace = "named"\n')
    assert load_settings(environ={"RF_JOBS_CONFIG": str(named)}).settings.jobs.namespace == "named"
    other = written(folder / "other/pyproject.toml", '[tool.rf-jobs.jobs]\nnamespace = "argument"\n')
    assert load_settings(other, environ={"RF_JOBS_CONFIG": str(named)}).settings.jobs.namespace == "argument"


def test_an_applications_own_files_are_left_alone(folder: Path) -> None:
    written(folder / "config/default.toml", '[database]\nurl = "x"\n')
    written(folder / "pyproject.toml", '[project]\nname = "x"\n')
    assert load_settings(environ={}).path is None


def test_queues_default_to_the_default_queue(folder: Path) -> None:
    loaded = load_settings(environ={"RF_JOBS_DEFAULT_QUEUE": "main"})
    assert loaded.settings.worker.queues == ("main",)


@pytest.mark.parametrize(
    ("text", "queues"),
    [
        ("emails,default", ("emails", "default")),
        (" emails , default ,", ("emails", "default")),
        ("high=5,low=1", {"high": 5, "low": 1}),
        ("high = 5", {"high": 5}),
        ("", ("default",)),
    ],
)
def test_queues_as_text(folder: Path, text: str, queues: object) -> None:
    assert load_settings(environ={"RF_JOBS_WORKER_QUEUES": text}).settings.worker.queues == queues
    assert load_settings(environ={}, overrides={"jobs.worker.queues": text}).settings.worker.queues == queues


@pytest.mark.parametrize(
    ("toml", "queues"),
    [('["emails", "default"]', ("emails", "default")), ("{high = 5, low = 1}", {"high": 5, "low": 1})],
)
def test_queues_in_toml(folder: Path, toml: str, queues: object) -> None:
    written(folder / "rf-jobs.toml", f"[jobs.worker]\nqueues = {toml}\n")
    assert load_settings(environ={}).settings.worker.queues == queues


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("RF_JOBS_SCHEDULER_ENABLED", "yes", True),
        ("RF_JOBS_TELEMETRY_METRICS", "0", False),
        ("RF_JOBS_WORKER_HTTP_PORT", "0", 0),
        ("RF_JOBS_WORKER_HTTP_PORT", "none", None),
        ("RF_JOBS_WORKER_MAX_MEMORY_MB", "", None),
        ("RF_JOBS_TELEMETRY_SAMPLE_RATIO", "1e-3", 0.001),
        ("RF_JOBS_TELEMETRY_TRACE", "child", "child"),
        ("RF_JOBS_IMPORTS", "myapp.jobs, other", ("myapp.jobs", "other")),
        ("RF_JOBS_SCHEDULER_TIMEZONE", "Europe/Paris", "Europe/Paris"),
        ("RF_JOBS_REDIS_URL", "unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
    ],
)
def test_variables_are_parsed(folder: Path, variable: str, text: str, value: object) -> None:
    entry = load_settings(environ={variable: text}).entries[VARIABLES[variable].path]
    assert entry.value == value
    assert type(entry.value) is type(value)
    assert str(entry.origin) == variable


# ------------------------------------------------------------------------------------------------ what errors say


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[jobs]\nmax_atempts = 3", "unknown key 'max_atempts' in [jobs]; did you mean 'max_attempts'?"),
        ("[jobs]\nprocesses = 3", "unknown key 'processes' in [jobs]; it is a key of [jobs.worker]"),
        ("[jobs.security]\nzzz = 3", "unknown key 'zzz' in [jobs.security]; known are allow_evicting_server"),
        ("[worker]\nprocesses = 3", "unknown table [worker]; did you mean 'jobs.worker'?"),
        ("[jobs.workers]\nprocesses = 3", "unknown table [jobs.workers]; did you mean 'jobs.worker'?"),
        ("[jobs]\nworker = 3", "jobs.worker in {file} is 3; expected the table [jobs.worker]"),
        ("jobs = 3", "jobs in {file} is 3; expected the table [jobs]"),
        ("[jobs]\nmax_attempts = 0", "jobs.max_attempts is 0 (from {file}); expected a whole number, at least 1"),
        ("[jobs]\nmax_attempts = true", "jobs.max_attempts is True (from {file}); expected a whole number, at least 1"),
        (
            "[jobs]\nbackoff_seconds = nan",
            "jobs.backoff_seconds is nan (from {file}); expected a number, at least 0 and",
        ),
        (
            "[jobs]\nbackoff_seconds = inf",
            "jobs.backoff_seconds is inf (from {file}); expected a number, at least 0 and",
        ),
        ("[jobs]\nbackoff_seconds = -1", "jobs.backoff_seconds is -1 (from {file}); expected a number, at least 0 and"),
        ("[jobs]\nimports = [1]", "jobs.imports is [1] (from {file}); expected a list of module names"),
        ('[jobs]\nimports = ["a b"]', "jobs.imports is ['a b'] (from {file}) ('a b' is not the name of a module)"),
        (
            "[jobs.exporter]\nport = 70000",
            "jobs.exporter.port is 70000 (from {file}); expected a whole number, at least 0 and",
        ),
        ('[jobs.telemetry]\ntrace = "kid"', "jobs.telemetry.trace is 'kid' (from {file}); expected one of auto, child"),
        ("[jobs.worker]\nqueues = {a = 0}", "jobs.worker.queues is {{'a': 0}} (from {file}) (a weight is less than 1)"),
        ('[jobs.worker]\nqueues = ["a", "a"]', "(a queue is named twice); expected names in their order"),
        ('[jobs.worker]\nqueues = ["a b"]', "queue name is 'a b'"),
        ('[jobs]\nnamespace = "a{b}"', "(it becomes a part of every key); expected 1 to 64 of the letters"),
        (
            '[jobs]\nredis_url = "localhost:6379"',
            "(the scheme is 'localhost'); expected a URL with one of the schemes redis",
        ),
        ('[jobs.scheduler]\ntimezone = "Mars/Base"', "(no such time zone; slim systems need the package tzdata)"),
        ('[jobs.telemetry]\notlp_endpoint = "collector:4318"', "expected an http:// or https:// URL, or left out"),
        ("[jobs\n", "{file} is not TOML: "),
    ],
)
def test_a_mistake_in_the_file(folder: Path, toml: str, message: str) -> None:
    file = written(folder / "rf-jobs.toml", toml)
    with pytest.raises(ConfigError) as caught:
        load_settings(environ={})
    assert message.format(file=file) in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_mistake_in_pyproject_names_its_table(folder: Path) -> None:
    written(folder / "pyproject.toml", "[tool.rf-jobs.jobs]\nredis_ulr = 1\n")
    with pytest.raises(ConfigError, match=r"'redis_ulr' in \[tool\.rf-jobs\.jobs\]; did you mean 'redis_url'\?"):
        load_settings(environ={})
    written(folder / "pyproject.toml", '[tool.rf-jobs]\nredis_url = "redis://h"\n')
    with pytest.raises(ConfigError, match=r"rf-jobs\.redis_url"):
        load_settings(environ={})


def test_a_mistake_in_the_environment(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"variable RF_JOBS_REDIS_ULR; did you mean 'RF_JOBS_REDIS_URL'\?"):
        load_settings(environ={"RF_JOBS_REDIS_ULR": "x"})
    message = r"jobs\.worker\.processes is 'two' \(from RF_JOBS_WORKER_PROCESSES\); expected a whole number, at least 1"
    with pytest.raises(ConfigError, match=message):
        load_settings(environ={"RF_JOBS_WORKER_PROCESSES": "two"})
    with pytest.raises(ConfigError, match="expected true or false"):
        load_settings(environ={"RF_JOBS_SCHEDULER_ENABLED": "perhaps"})
    with pytest.raises(ConfigError, match="each queue needs one number"):
        load_settings(environ={"RF_JOBS_WORKER_QUEUES": "high=5,low"})


def test_a_mistake_in_an_argument(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"'worker\.processes' is no setting; did you mean 'jobs\.worker\.processes'\?"
    ):
        load_settings(environ={}, overrides={"worker.processes": 2})
    with pytest.raises(ConfigError, match=r"processes is 0 \(from argument\)"):
        load_settings(environ={}, overrides={"jobs.worker.processes": 0})


def test_files_that_cannot_be_read(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml' is missing"):
        load_settings("nowhere.toml", environ={})
    with pytest.raises(ConfigError, match=r"nowhere\.toml' is missing"):
        load_settings(environ={"RF_JOBS_CONFIG": "nowhere.toml"})
    (folder / "rf-jobs.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_settings(environ={})


def test_what_kubernetes_sets_for_a_service_called_rf_jobs_is_not_ours(folder: Path) -> None:
    environ = {
        "RF_JOBS_SERVICE_HOST": "10.0.0.1",
        "RF_JOBS_SERVICE_PORT": "9440",
        "RF_JOBS_SERVICE_PORT_METRICS": "9440",
        "RF_JOBS_PORT": "tcp://10.0.0.1:9440",
        "RF_JOBS_PORT_9440_TCP": "tcp://10.0.0.1:9440",
        "RF_JOBS_PORT_9440_TCP_ADDR": "10.0.0.1",
        "RF_JOBS_EXPORTER_SERVICE_HOST": "10.0.0.2",
        "RF_JOBS_EXPORTER_PORT": "tcp://10.0.0.2:9440",
        "RF_JOBS_TEST_SERVER": "redis",
    }
    assert load_settings(environ=environ).settings.exporter.port == 9440
    assert load_settings(environ={"RF_JOBS_EXPORTER_PORT": "9000"}).settings.exporter.port == 9000


# ------------------------------------------------------------------------------------------------ secrets


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:s3cret@host:6379/0", "redis://:***@host:6379/0"),
        ("rediss://user:s3cret@host/1?ssl_cert_reqs=none", "rediss://user:***@host/1?ssl_cert_reqs=none"),
        ("redis://user:s3c@r/e?t@host/1", "redis://user:***@host/1"),
        ("redis://host/0?db=1&password=s3cret&x=1", "redis://host/0?db=1&password=***&x=1"),
        ("unix:///run/a@b:c/redis.sock?password=s3cret", "unix:///run/a@b:c/redis.sock?password=***"),
        ("https://u:s3cret@collector:4318/v1", "https://u:***@collector:4318/v1"),
        ("user:s3cret@host", "user:***@host"),
        ("", ""),
    ],
)
def test_mask_url(url: str, masked: str) -> None:
    assert mask_url(url) == masked


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(lambda text: f"<{text}>"))
def test_no_password_survives_the_mask(password: str) -> None:
    url = f"redis://someone:{password}@example.org:6379/0"
    assert password not in mask_url(url)
    assert mask_url(url) == "redis://someone:***@example.org:6379/0"


def test_listings_and_errors_hide_secrets(folder: Path) -> None:
    good = load_settings(environ={"RF_JOBS_REDIS_URL": "redis://:s3cret@host"})
    assert good.settings.jobs.redis_url == "redis://:s3cret@host"
    assert good.entries["jobs.redis_url"].shown == "'redis://:***@host'"
    for bad in ["http://:s3cret@host", "redis://:12345678/s3cret@host", "redis://:s3cret@", "redis//:s3cret@host"]:
        with pytest.raises(ConfigError) as caught:
            load_settings(environ={"RF_JOBS_REDIS_URL": bad})
        assert "s3cret" not in str(caught.value), bad
        assert "12345678" not in str(caught.value), bad
        assert caught.value.__suppress_context__


# ------------------------------------------------------------------------------------------------ the tables


def test_every_key_is_complete() -> None:
    assert len(VARIABLES) == len(KEYS), "two keys would share a variable"
    for key in KEYS.values():
        assert key.description, key.path
        assert expected_form(key), key.path
        assert key.variable.startswith("RF_JOBS_")
    assert KEYS["jobs.redis_url"].variable == "RF_JOBS_REDIS_URL"
    assert KEYS["jobs.worker.processes"].variable == "RF_JOBS_WORKER_PROCESSES"


@pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: key.path)
def test_every_default_fits_its_own_key(key: object) -> None:
    from rf_jobs.words.config_keys import Key

    assert isinstance(key, Key)
    assert convert(key, key.default, "default") == key.default


def test_settings_cross_a_process_boundary_and_do_not_change(folder: Path) -> None:
    settings = load_settings(environ={"RF_JOBS_WORKER_QUEUES": "a=1"}).settings
    assert pickle.loads(pickle.dumps(settings)) == settings
    with pytest.raises(AttributeError):
        settings.jobs.max_attempts = 4  # type: ignore[misc]


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.lists(st.text(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)


@given(st.sampled_from(list(KEYS)), JUNK)
def test_any_value_is_taken_or_refused_with_its_key_and_origin(path: str, value: object) -> None:
    """Nothing but ``ConfigError``; and what is taken once is taken again, unchanged."""
    key = KEYS[path]
    try:
        taken = convert(key, value, "somewhere")
    except ConfigError as error:
        assert path in str(error)
        assert "(from somewhere)" in str(error)
        assert "expected" in str(error)
    else:
        assert convert(key, taken, "again") == taken


NUMBERS = [
    path for path, key in KEYS.items() if isinstance(key.default, int | float) and not isinstance(key.default, bool)
]


@given(st.sampled_from(NUMBERS), st.integers(1, 60))
def test_a_number_means_the_same_from_everywhere(path: str, value: int) -> None:
    key = KEYS[path]
    if key.name == "sample_ratio":
        value = 1
    from_toml, from_text = convert(key, value, "file"), convert(key, str(value), "variable")
    assert from_toml == from_text == value
    assert type(from_toml) is type(from_text) is type(key.default)


def test_sections_are_the_annotations_of_settings() -> None:
    assert {key.section for key in KEYS.values()} == set(get_type_hints(Settings))
