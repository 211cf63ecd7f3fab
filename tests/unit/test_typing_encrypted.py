"""What a type checker sees of encrypted fields: the type that stands in them. mypy and pyright read this file."""

from __future__ import annotations

from typing import Any, assert_type

import pytest

from rf_jobs import Encrypted, FilePayloads, InvalidOption, Job, JobContext, ObjectPayloads, PayloadStore
from rf_jobs.model.codec import decode_payload, encode_payload
from rf_jobs.words.errors import SerializationError


class Patient(Job):
    name: Encrypted[str]
    visits: Encrypted[list[int] | None] = None

    async def handle(self, ctx: JobContext) -> int:
        assert_type(self.name, str)
        assert_type(self.visits, list[int] | None)
        return len(self.name) + sum(self.visits or [])


class Sealed(Job, encrypt=True):
    name: str

    def handle(self, ctx: JobContext) -> str:
        return assert_type(self.name, str)


class Mine:
    async def put(self, name: str, data: bytes) -> None: ...
    async def get(self, name: str) -> bytes | None: ...
    async def delete(self, name: str) -> None: ...


async def test_what_the_checkers_are_told_is_so() -> None:
    patient = Patient(name="Ada", visits=[1, 2])
    assert assert_type(patient.name, str) == "Ada"
    assert assert_type(await patient.handle(JobContext.fake()), int) == 6
    assert Sealed(name="Ada").handle(JobContext.fake()) == "Ada"
    stores: list[PayloadStore] = [Mine(), FilePayloads("nowhere"), ObjectPayloads(object(), "bucket")]
    assert len(stores) == 3


def test_what_the_checkers_refuse_is_an_error() -> None:
    wrong = Patient(name=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(SerializationError, match="field 'name'"):
        encode_payload(wrong, Patient.__job_class__)
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'name'"):
        Patient()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(InvalidOption, match="encrypt is 1"):
        type("Wrong", (Job,), {"handle": Sealed.handle}, encrypt=1)


def test_the_codec_sees_the_type_too() -> None:
    entry: Any = Patient.__job_class__
    assert decode_payload(entry, b'{"name":"Ada"}', 1) == Patient(name="Ada")
    with pytest.raises(SerializationError, match="field 'name': it is not of its type"):
        decode_payload(entry, b'{"name":7}', 1)
