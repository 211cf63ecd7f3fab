"""What a user may import, and what an import costs."""

from __future__ import annotations

import re

import rf_jobs
from rf_jobs import prelude
from rf_jobs.words import errors
from tests.support.processes import in_fresh_interpreter


def test_every_error_of_the_tree_is_public() -> None:
    tree = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert tree <= set(rf_jobs.__all__)


def test_the_names_are_there_and_sorted() -> None:
    for module in (rf_jobs, prelude):
        assert all(hasattr(module, name) for name in module.__all__)
        assert module.__all__ == sorted(module.__all__, key=lambda name: (name[0].islower(), name))


def test_the_prelude_has_the_same_things() -> None:
    assert all(getattr(prelude, name) is getattr(rf_jobs, name) for name in prelude.__all__)


def test_an_import_loads_no_telemetry_and_no_http_server() -> None:
    heavy = "opentelemetry", "prometheus_client", "aiohttp", "croniter", "click"
    code = f"import sys, rf_jobs.prelude; print([m for m in sys.modules if m.startswith({heavy!r})])"
    assert in_fresh_interpreter(code) == "[]\n"


def test_the_tree_of_errors_is_the_one_that_is_drawn() -> None:
    path: list[type[BaseException]] = []
    drawn: set[str] = set()
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"(    [│├└─ ]*)([A-Z]\w+)", line):
            depth = (len(found[1]) - 4) // 4
            cls = getattr(errors, found[2])
            del path[depth:]
            assert cls.__bases__ == ((path[-1],) if path else (Exception,)), found[2]
            path.append(cls)
            drawn.add(found[2])
    assert drawn == {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert issubclass(errors.DuplicateJob, errors.QueueError)
    assert issubclass(errors.QueueError, errors.RfJobsError)
