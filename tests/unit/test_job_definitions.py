"""What a job class may not say, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from rf_jobs import Job, JobContext
from rf_jobs.words.errors import InvalidOption, JobError


def test_a_hook_that_is_no_coroutine() -> None:
    with pytest.raises(InvalidOption, match=r"failed\(\) of class .*Plain is a plain function; make it `async def"):

        class Plain(Job):  # pyright: ignore[reportUnusedClass]
            async def handle(self, ctx: JobContext) -> None: ...
            def failed(self, ctx: JobContext, error: JobError) -> None: ...  # type: ignore[override]


def test_a_hook_that_is_no_coroutine_of_an_abstract_class() -> None:
    with pytest.raises(InvalidOption, match="make it `async def"):

        class Shared(Job, abstract=True):  # pyright: ignore[reportUnusedClass]
            def failed(self, ctx: JobContext, error: JobError) -> None: ...  # type: ignore[override]


@pytest.mark.parametrize(
    ("option", "value", "keyword"),
    [
        ("queue", "emails", "queue='emails'"),
        ("timeout", 30, "timeout=30"),
        ("tags", ("a",), r"tags=\('a',\)"),
        ("executor", "process", "executor='process'"),
        ("retry_on", OSError, "retry_on=<class 'OSError'>"),
    ],
)
def test_an_option_as_an_attribute(option: str, value: object, keyword: str) -> None:
    async def handle(self: Any, ctx: JobContext) -> None: ...

    message = rf"class Attribute sets {option} as an attribute; .*class Attribute\(Job, {keyword}\)"
    with pytest.raises(InvalidOption, match=message):
        type("Attribute", (Job,), {"handle": handle, option: value})


def test_an_option_as_an_attribute_of_a_mixin() -> None:
    class Emails:
        queue = "emails"

    with pytest.raises(InvalidOption, match="sets queue as an attribute"):

        class Welcome(Emails, Job):  # type: ignore[misc]
            async def handle(self, ctx: JobContext) -> None: ...


def test_a_field_of_a_mixin_that_is_named_like_an_option() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Timed:
        timeout: int

    with pytest.raises(InvalidOption, match="has a field 'timeout', which is the name of a method of Job"):

        class Late(Timed, Job):  # pyright: ignore[reportUnusedClass]
            async def handle(self, ctx: JobContext) -> None: ...


def test_what_is_allowed_stays_so() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Addressed:
        address: str = "nobody"

    class Fine(Addressed, Job, queue="emails", timeout=3):
        executor: str = "a field of that name is no option"
        result_ttl: int = field(default=3)
        GREETING = "hello"

        async def handle(self, ctx: JobContext) -> None: ...

        @staticmethod
        def tags() -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
            return ("static",)

        @classmethod
        def priority(cls) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            return 1

    class Finer(Fine):
        async def failed(self, ctx: JobContext, error: JobError) -> None: ...

    @dataclass(frozen=True, kw_only=True)
    class Executed:
        executor: str = "a field again"

    class Finest(Job, Executed):
        async def handle(self, ctx: JobContext) -> None: ...

    assert Finest().executor == "a field again"
    job = Finer()
    assert (job.address, job.result_ttl, job.tags(), job.queue()) == ("nobody", 3, ("static",), "emails")
