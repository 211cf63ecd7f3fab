"""What is kept sealed beside a job (its result, its log, its progress) as it may be read here: opened where there is the key,
else masked. Without a keyring all is masked: for what is shown to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from rf_jobs.model.crypto import Keyring, is_sealed
from rf_jobs.words.config_secrets import MASK
from rf_jobs.words.errors import MissingKey, TamperedPayload

_MASKED = msgspec.json.encode(MASK)
_PREFIX = b'"message":"sealed:'


class Words(msgspec.Struct, omit_defaults=True):
    """A message of an encrypted job, before it is sealed."""

    message: str
    fields: dict[str, Any] = {}


def revealed(keyring: Keyring | None, kind: str, job_id: str, data: bytes | None) -> bytes | None:
    """A stored value: JSON."""
    if data is None or not is_sealed(data):
        return data
    if keyring is None:
        return _MASKED
    try:
        return keyring.open_value(kind, job_id, data)
    except (MissingKey, TamperedPayload):
        return _MASKED


def revealed_message(keyring: Keyring | None, kind: str, job_id: str, data: bytes | None) -> bytes | None:
    """Progress, or a line of the log: a JSON object with a message that may be sealed."""
    if data is None or _PREFIX not in data:
        return data
    try:
        found = msgspec.json.decode(data, type=dict[str, Any])
        words = _words(keyring, kind, job_id, found["message"])
    except (msgspec.MsgspecError, KeyError):
        return data
    found["message"] = words.message
    if words.fields:
        found["fields"] = words.fields
    return msgspec.json.encode(found)


def revealed_lines(keyring: Keyring | None, job_id: str, lines: Sequence[bytes]) -> list[bytes]:
    """Lines of a job's log."""
    return [revealed_message(keyring, "log", job_id, line) or b"" for line in lines]


def sealed_message(keyring: Keyring, kind: str, job_id: str, words: Words) -> str:
    """A message as it may lie in the store. Raises ``MissingKey``."""
    return keyring.seal_value(kind, job_id, msgspec.json.encode(words, enc_hook=str)).decode()


def _words(keyring: Keyring | None, kind: str, job_id: str, message: str) -> Words:
    if keyring is None:
        return Words(MASK)
    try:
        return msgspec.json.decode(keyring.open_value(kind, job_id, message.encode()), type=Words)
    except (MissingKey, TamperedPayload):
        return Words(MASK)
