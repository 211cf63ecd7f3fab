"""Names, aliases and catalogs of job classes, and what is wrong with them before they run."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rf_jobs import Encrypted, Job, JobContext
from rf_jobs.model import catalog
from rf_jobs.model.catalog import Catalog, catalog_of
from rf_jobs.model.fields import faults
from rf_jobs.model.jobclass import JobClass, Registry
from rf_jobs.model.many import verdicts
from rf_jobs.words.control import Fail
from rf_jobs.words.errors import InvalidOption, UnknownJobClass


def one(name: str, aliases: Any = (), **options: Any) -> JobClass:
    """A class of this name, that only its own registry will know."""

    async def handle(self: Job, ctx: JobContext) -> None: ...

    body = {"handle": handle, "__qualname__": f"Qualified_{name}", "__module__": "a_module_of_tests"}
    meta: Any = type(Job)
    kind = meta(f"Qualified_{name}", (Job,), body, name=f"test-job-classes.{name}", aliases=aliases, **options)
    entry: JobClass = kind.__job_class__
    return entry


def registry(*entries: JobClass) -> Registry:
    found = Registry()
    for entry in entries:
        found.add(entry)
    return found


def test_a_class_is_found_by_its_name_and_by_its_aliases() -> None:
    entry = one("found", ("test-job-classes.before", "test-job-classes.even-before"))
    known = registry(entry)
    for name in (entry.name, *entry.aliases):
        assert known.find(name) is entry
        assert known.get(name) is entry
    assert known.names() == [entry.name]
    assert known.find("another") is None
    with pytest.raises(
        UnknownJobClass, match=r"no job class is registered as 'another'.*known: test-job-classes.found\)"
    ):
        known.get("another")


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (
            ("a1", ("shared",)),
            ("a2", ("shared",)),
            "Qualified_a1 has it as an alias, .*Qualified_a2 has it as an alias",
        ),
        (
            ("b1", ("test-job-classes.b2",)),
            ("b2", ()),
            "Qualified_b1 has it as an alias, .*Qualified_b2 has it as its name",
        ),
        (
            ("c1", ()),
            ("c2", ("test-job-classes.c1",)),
            "Qualified_c1 has it as its name, .*Qualified_c2 has it as an alias",
        ),
    ],
)
def test_two_classes_with_one_name(first: tuple[str, Any], second: tuple[str, Any], told: str) -> None:
    one(*first)
    with pytest.raises(InvalidOption, match=f"two job classes answer to .*{told}; take the alias from one of them"):
        one(*second)


def test_a_class_that_is_defined_again_may_have_other_names() -> None:
    known = registry(one("again", ("test-job-classes.once",)))
    assert known.changes == 1
    later = one("again", ("test-job-classes.twice",))
    known.add(later)
    assert known.changes == 2
    assert (known.find("test-job-classes.once"), known.find("test-job-classes.twice")) == (None, later)


@pytest.mark.parametrize(
    ("aliases", "told"),
    [
        ("old", r"aliases of the job class .* is 'old'; give a sequence of names: aliases=\('old',\)"),
        (7, "is 7; give a sequence"),
        (("",), "has the alias ''; an alias is a name it had before, as text"),
        ((None,), "has the alias None"),
        (("test-job-classes.bad",), "has its own name as an alias; leave it out"),
    ],
)
def test_aliases_that_cannot_be(aliases: Any, told: str) -> None:
    with pytest.raises(InvalidOption, match=told):
        one("bad", aliases)


# --- catalogs ----------------------------------------------------------------------------------------------------


def test_a_catalog_says_what_can_be_run() -> None:
    told = catalog_of(registry(one("told", ("test-job-classes.untold",), version=3), one("plain")))
    name = "test-job-classes.told"
    assert told.classes == {name: 3, "test-job-classes.plain": 1}
    assert [told.can_run(each, 3) for each in (name, "test-job-classes.untold")] == [True, True]
    assert (told.can_run(name, 1), told.can_run(name, 4), told.can_run("nobody's")) == (True, False, False)
    assert Catalog({"a": 1}, complete=False).can_run("nobody's") is None


@given(
    st.dictionaries(st.text(max_size=50), st.integers(1, 99), max_size=50),
    st.dictionaries(st.text(), st.text(), max_size=9),
)
def test_a_catalog_is_read_as_it_was_written(classes: dict[str, int], aliases: dict[str, str]) -> None:
    there = Catalog(classes, aliases)
    digest, data = catalog.encode(there)
    assert catalog.decode(data) == there
    backwards = Catalog(dict(reversed(classes.items())), dict(reversed(aliases.items())))
    assert catalog.encode(backwards) == (digest, data)


def test_a_catalog_that_is_too_long_is_cut() -> None:
    long = Catalog({f"module_{n}:{'x' * 80}": 1 for n in range(5_000)}, {"old": "nobody"})
    _, data = catalog.encode(long)
    assert len(data) <= catalog.MAX_BYTES
    cut = catalog.decode(data)
    assert cut is not None
    assert (cut.complete, cut.aliases) == (False, {})
    assert 1_000 < len(cut.classes) < 5_000


@pytest.mark.parametrize("data", [None, b"", b"[]", b'{"classes": 1}', b"\xff"])
def test_a_damaged_catalog_is_none(data: bytes | None) -> None:
    assert catalog.decode(data) is None


# --- batch consumers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"many": 0}, "many is 0; it must be a whole number from 1 to 1000"),
        ({"many": True}, "many is True"),
        ({"many": 1001}, "many is 1001"),
        ({"many_wait": 61}, "many_wait is 61; it must be from 0 to 60 seconds"),
        ({"many_wait": -1}, "many_wait is -1"),
        ({"executor": "process"}, "has handle_many and executor='process'"),
    ],
)
def test_options_of_a_batch_consumer_that_cannot_be(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidOption, match=told):

        class Wrong(Job, **options):  # pyright: ignore[reportUnusedClass]
            @classmethod
            async def handle_many(cls, jobs: list[Any], ctxs: list[JobContext]) -> None: ...


def test_many_without_handle_many() -> None:
    with pytest.raises(InvalidOption, match=r"has many or many_wait, but no handle_many\(cls, jobs, ctxs\)"):

        class Wrong(Job, many=3):  # pyright: ignore[reportUnusedClass]
            async def handle(self, ctx: JobContext) -> None: ...


def test_handle_beside_handle_many() -> None:
    with pytest.raises(InvalidOption, match="has both handle and handle_many"):

        class Wrong(Job):  # pyright: ignore[reportUnusedClass]
            async def handle(self, ctx: JobContext) -> None: ...
            @classmethod
            async def handle_many(cls, jobs: list[Any], ctxs: list[JobContext]) -> None: ...


def test_handle_many_of_one_job() -> None:
    with pytest.raises(
        InvalidOption, match=r"handle_many of class .*Wrong is a method of one job; make it a @classmethod"
    ):

        class Wrong(Job):  # pyright: ignore[reportUnusedClass]
            async def handle_many(self, ctxs: list[JobContext]) -> None: ...


def test_a_field_that_is_called_like_it() -> None:
    with pytest.raises(InvalidOption, match="field 'handle_many', which is the name of a method of Job"):

        class Wrong(Job):  # pyright: ignore[reportUnusedClass]
            handle_many: int

            async def handle(self, ctx: JobContext) -> None: ...


def test_options_are_inherited_and_the_size_has_a_default() -> None:
    class Shared(Job, abstract=True, many_wait=2):
        pass

    class Whole(Shared):
        @classmethod
        def handle_many(cls, jobs: list[Any], ctxs: list[JobContext]) -> None: ...

    many = Whole.__job_class__.many
    assert many is not None
    assert (many.size, many.wait, Whole.__job_class__.is_async) == (100, 2.0, False)


async def test_one_by_one_it_is_a_crowd_of_one() -> None:
    class Doubles(Job):
        n: int

        @classmethod
        async def handle_many(cls, jobs: list[Any], ctxs: list[JobContext]) -> list[Any]:
            return [job.n * 2 if job.n else Fail("nothing") for job in jobs]

    assert await Doubles(n=4).handle(JobContext.fake()) == 8
    with pytest.raises(Fail, match="nothing"):
        await Doubles(n=0).handle(JobContext.fake())


@given(st.lists(st.integers()), st.integers(0, 9))
def test_an_answer_has_a_value_for_each_or_fails_all(answer: list[int], count: int) -> None:
    found = verdicts(answer, count, "Some")
    assert len(found) == count
    assert found == answer if len(answer) == count else all(isinstance(each, Fail) for each in found)


# --- what is wrong before it runs ----------------------------------------------------------------------------------


@dataclass
class Inner:
    thread: threading.Thread
    when: list[datetime]


def test_fields_that_no_payload_can_hold() -> None:
    class Holds(Job):
        whole: dict[str, list[Inner]]
        fine: dict[UUID, datetime | None]
        unclear: list[int] | list[str]

        async def handle(self, ctx: JobContext) -> None: ...

    first, second = faults(Holds.__job_class__)
    assert first == "field 'whole' has the type threading.Thread, which cannot be written as JSON"
    assert second.startswith("field 'unclear' has a type that cannot be written as JSON: Type unions may not contain")


def test_annotations_that_name_nothing() -> None:
    class Vague(Job):
        what: Nothing  # type: ignore[name-defined]  # noqa: F821

        async def handle(self, ctx: JobContext) -> None: ...

    assert faults(Vague.__job_class__) == [
        "the annotations of its fields cannot be read: NameError: name 'Nothing' is not defined"
    ]


@pytest.mark.parametrize(
    ("backoff", "told"),
    [
        (lambda attempt, error: 1 / (2 - attempt), "fails after attempt 2: ZeroDivisionError"),
        (lambda attempt, error: "soon", "fails after attempt 1: InvalidOption: the delay that backoff gave is 'soon'"),
        (lambda attempt: 1, "fails after attempt 1: TypeError"),
    ],
)
def test_a_backoff_that_fails(backoff: Any, told: str) -> None:
    entry = one("backoff", backoff=backoff)
    assert len(faults(entry)) == 1
    assert told in faults(entry)[0]


class Asked(Job):
    """Its options depend on the job."""

    where: str = "fine"

    def queue(self) -> str:
        return self.where

    def timeout(self) -> float:
        return 1 / (self.where != "nowhere")

    def tags(self) -> tuple[str, ...]:
        return (self.where,)

    def backoff(self) -> Any:
        return 3 if self.where == "fine" else lambda attempt, error: -attempt

    async def handle(self, ctx: JobContext) -> None: ...


def test_option_methods_are_asked_of_a_job() -> None:
    entry = Asked.__job_class__
    assert faults(entry) == []
    backoff, queue = faults(entry, Asked(where="no such {queue}"))
    assert backoff.startswith("its backoff fails after attempt 1: InvalidOption: the delay that backoff gave is -1")
    assert queue.startswith("its queue() fails: InvalidOption: ")
    assert "its timeout() fails: ZeroDivisionError: division by zero" in faults(entry, Asked(where="nowhere"))


def test_what_is_sealed_is_not_quoted() -> None:
    class Sealed(Job):
        secret: Encrypted[str]

        def queue(self) -> str:
            return f"no such {{{self.secret}}}"

        async def handle(self, ctx: JobContext) -> None: ...

    assert faults(Sealed.__job_class__, Sealed(secret="canary")) == ["its queue() fails: InvalidOption"]


def test_option_methods_of_a_job_that_cannot_be_made_up() -> None:
    class Needs(Job):
        what: str

        def timeout(self) -> float:
            return -1

        async def handle(self, ctx: JobContext) -> None: ...

    entry = Needs.__job_class__
    assert faults(entry) == []
    assert faults(entry, Needs(what="x"))[0].startswith("its timeout() fails: InvalidOption: timeout is -1")


def test_a_class_that_is_in_order() -> None:
    assert faults(one("fine", backoff=5, max_attempts=9)) == []
