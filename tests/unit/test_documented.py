"""What a program may write stands on a page for people, in code that a test runs, and in a test."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import rf_jobs
from docs.api import INNER, WITH_METHODS
from rf_jobs import Job, RfJobsError, events
from rf_jobs.words.config_keys import TABLES

ROOT = Path(__file__).parents[2]
GUIDES = [*(ROOT / "docs/guides").glob("*.md"), *(ROOT / "docs/migrating").glob("*.md")]
PROSE = "\n".join(page.read_text() for page in [*GUIDES, *(ROOT / "docs").glob("*.md")])
RUN = "\n".join(
    [
        *(path.read_text() for path in (ROOT / "examples").glob("*.py")),
        *(
            block
            for page in [*GUIDES, ROOT / "docs/cli.md"]
            for block in re.findall(r"^```(?:python|sh|toml)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        ),
    ]
)
"""What test_guides, test_examples and test_cli_docs run."""
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))
KEYWORDS = [name for name in inspect.signature(Job.__init_subclass__).parameters if name != "unknown"]
ERRORS = sorted(
    name for name in rf_jobs.__all__
    if isinstance(value := getattr(rf_jobs, name), type) and issubclass(value, RfJobsError)
)  # fmt: skip
EVENTS = sorted(
    name for name, value in vars(events).items()
    if isinstance(value, type) and issubclass(value, events.Event) and not value.__subclasses__()
)  # fmt: skip
LOOKED_UP = {
    "EventBus": {"emit", "emit_all", "wants"},
    "JobContext": {"traceparent", "tracestate"},
    "Relay": {"stop"},
    "Scheduler": {"is_running", "stalled"},
}
"""For those who extend rf-jobs, or run it inside of something else: a line in docs/reference/api.md is enough."""


def names(cls: type[Any]) -> list[str]:
    left_out = INNER.get(cls.__name__, set()) | LOOKED_UP.get(cls.__name__, set())
    return sorted(name for name in dir(cls) if not name.startswith("_") and name not in left_out)


METHODS = [(cls.__name__, name) for cls in WITH_METHODS for name in names(cls)]


@pytest.mark.parametrize(("owner", "name"), METHODS, ids=lambda word: word)
def test_a_method_is_explained_shown_and_tested(owner: str, name: str) -> None:
    called = rf"(\.|def ){name}\b"
    if owner == "WorkerConfig":  # each is a keyword, a setting and an option too
        called += rf"|\b{name}(_seconds)? ?=|--{name.replace('_', '-')}\b|\(\"{name}\","
    assert re.search(rf"\b{name}(_seconds)?\b", PROSE), f"no page names {owner}.{name}"
    assert re.search(called, RUN), f"no example and no guide uses {owner}.{name}"
    assert re.search(called, TESTS), f"no test uses {owner}.{name}"


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_a_class_keyword_is_explained_shown_and_tested(keyword: str) -> None:
    assert f"`{keyword}`" in (ROOT / "docs/guides/jobs.md").read_text()
    assert re.search(rf"\(\s*Job,(?:[^()]|\([^()]*\))*\b{keyword}=|\b{keyword}=.*\n?.*\):", RUN), (
        f"no example and no guide uses {keyword}="
    )
    assert re.search(rf"\b{keyword}=|\"{keyword}\":", TESTS), f"no test uses {keyword}="


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_is_explained_and_tested(error: str) -> None:
    assert f"`{error}`" in (ROOT / "docs/guides/errors.md").read_text()
    assert re.search(rf"\b{error}\b", TESTS), f"no test meets {error}"


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_is_explained_and_tested(event: str) -> None:
    assert f"`{event}`" in (ROOT / "docs/reference/events.md").read_text(), "run make generate"
    assert re.search(rf"\b{event}\b", TESTS), f"no test hears {event}"


@pytest.mark.parametrize("table", TABLES)
def test_a_table_of_the_settings_is_shown(table: str) -> None:
    assert re.search(rf"^\[+{re.escape(table)}\]+", RUN, re.MULTILINE), f"no guide has [{table}]"


def test_the_index_names_every_guide() -> None:
    index = (ROOT / "docs/README.md").read_text()
    assert [page.name for page in (ROOT / "docs/guides").glob("*.md") if f"guides/{page.name}" not in index] == []
