"""A job's payload: typed fields to JSON and back, by msgspec. There is no other codec and no pickle.

A payload that does not fit its class is refused with the field's name, when it is dispatched and when it is read.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import msgspec

from rf_jobs.model.jobclass import JobClass
from rf_jobs.words.errors import SerializationError

HIDDEN = "what it holds is encrypted and not shown"

_plain = msgspec.json.Decoder()


def _to_builtin(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)  # a pydantic model; pydantic itself is never imported here
    if dump is not None:
        return dump(mode="json")
    raise NotImplementedError(f"a value of type {type(value).__qualname__} cannot be written as JSON")


def _from_builtin(kind: type[Any], value: Any) -> Any:
    validate = getattr(kind, "model_validate", None)
    if validate is not None:
        return validate(value)
    raise NotImplementedError(f"type {kind.__qualname__} cannot be read from JSON")


_encoder = msgspec.json.Encoder(enc_hook=_to_builtin)


_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}


def _decoder(kind: type[Any]) -> msgspec.json.Decoder[Any]:
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind, dec_hook=_from_builtin)
    return decoder


def encode_payload(job: Any, entry: JobClass) -> bytes:
    """The job's fields as JSON, checked against their types.

    Raises ``SerializationError`` that names the class, the field and what was expected.
    """
    try:
        data = _encoder.encode(job)
        _decoder(entry.type).decode(data)
    except (msgspec.ValidationError, NotImplementedError, TypeError, ValueError, RecursionError) as error:
        raise _explain(job, entry, error) from None
    return data


def decode_payload(entry: JobClass, data: bytes | msgspec.Raw, version: int) -> Any:
    """A job instance from its payload, upgraded where an older version of the class wrote it.

    Raises ``SerializationError``.
    """
    try:
        if version != entry.version:
            data = _encoder.encode(entry.type.upgrade(_plain.decode(data), version))
        return _decoder(entry.type).decode(data)
    except (
        Exception
    ) as error:  # upgrade() and validators are the user's code: whatever they raise, the payload is at fault
        # The cause's own text, and its traceback, may quote what is sealed.
        cause = error if entry.sealing is None else None
        raise SerializationError(
            f"the payload does not fit {entry.name} version {entry.version}: {_place(error, entry)};"
            " mend the payload, or give the class a default or an upgrade()"
        ) from cause


def encode_value(value: Any, what: str) -> bytes:
    """A result, progress or checkpoint as JSON; raises ``SerializationError``."""
    try:
        return _encoder.encode(value)
    except (NotImplementedError, TypeError, ValueError, RecursionError) as error:
        raise SerializationError(
            f"{what} of type {type(value).__qualname__} cannot be written as JSON: {error}"
        ) from None


def decode_value(data: bytes) -> Any:
    """A stored value, as plain Python data."""
    return _plain.decode(data)


def _place(error: Exception, entry: JobClass) -> str:
    """msgspec ends its messages with "- at `$.field`"; people want the field first. What is sealed is not quoted."""
    text = str(error)
    head, found, path = text.rpartition(" - at `$.")
    path = path.rstrip("`")
    if not found:
        return text if entry.sealing is None else f"{type(error).__name__}; {HIDDEN}"
    if entry.hides(re.split(r"[.\[]", path, maxsplit=1)[0]):
        return f"field {path!r}: it is not of its type; {HIDDEN}"
    return f"field {path!r}: {head[:1].lower()}{head[1:]}"


def _explain(job: Any, entry: JobClass, error: Exception) -> SerializationError:
    place = _place(error, entry)
    if not isinstance(error, msgspec.ValidationError):
        for field in dataclasses.fields(job):
            value = getattr(job, field.name)
            try:
                _encoder.encode(value)
            except Exception as cause:  # the first field that fails is the one to name, however it fails
                said = HIDDEN if entry.hides(field.name) else cause
                place = f"field {field.name!r} holds {type(value).__qualname__}: {said}"
                break
    return SerializationError(f"{entry.short_name} cannot be dispatched: {place}")
