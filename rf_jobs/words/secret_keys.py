"""Keys for sealing and for signing, as they stand in the settings: ``id:base64``, in order, the first of them in use.

A secret is in no message, no listing and no ``repr``. The name that goes on the wire is the id with a fingerprint of the
secret, so that another secret under the same id is a key that is not known, and not damage.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rf_jobs.words.config_secrets import MASK
from rf_jobs.words.errors import ConfigError

SECRET_BYTES = 32
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}\Z")
_FORM = "id:base64, where id is 1 to 32 letters, digits, _ . or - and base64 is 32 bytes; `rf-jobs keys new` makes one"


@dataclass(frozen=True, slots=True)
class SecretKey:
    """One key. ``secret`` is 32 bytes."""

    id: str
    secret: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """What the wire calls it: ``id#fingerprint``."""
        return f"{self.id}#{hashlib.sha256(b'rf-jobs key' + self.secret).hexdigest()[:8]}"

    def text(self) -> str:
        """As the settings have it, secret and all."""
        return f"{self.id}:{base64.b64encode(self.secret).decode()}"


def new_key(key_id: str) -> SecretKey:
    """A fresh key. Raises ``ConfigError`` for an id that can't be one."""
    if not _ID.match(key_id):
        raise ConfigError(f"the key id is {key_id!r}; use 1 to 32 letters, digits, _ . or -, the first no sign")
    return SecretKey(key_id, secrets.token_bytes(SECRET_BYTES))


def parse_keys(items: Iterable[str]) -> tuple[SecretKey, ...]:
    """Keys from their text. Raises ``ValueError`` that says which of them is wrong, and quotes none."""
    keys: list[SecretKey] = []
    for number, item in enumerate(items, 1):
        key_id, colon, text = item.strip().partition(":")
        if not colon or not _ID.match(key_id):
            raise ValueError(f"key {number} is not of the form {_FORM}")
        if any(key.id == key_id for key in keys):
            raise ValueError(f"two keys have the id {key_id!r}; each needs one of its own")
        keys.append(SecretKey(key_id, _secret(key_id, text)))
    return tuple(keys)


def _secret(key_id: str, text: str) -> bytes:
    plain = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
    try:
        secret = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"the secret of key {key_id!r} is no base64; the form is {_FORM}") from None
    if len(secret) != SECRET_BYTES:
        raise ValueError(
            f"the secret of key {key_id!r} has {len(secret)} bytes, not {SECRET_BYTES}; the form is {_FORM}"
        )
    return secret


def read_keys(path: str | Path) -> tuple[SecretKey, ...]:
    """The keys of a file: one on a line; empty lines, and lines that begin with ``#``, say nothing. Raises ``ConfigError``."""
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines()]
        return parse_keys(line for line in lines if line and not line.startswith("#"))
    except UnicodeDecodeError:
        raise ConfigError(f"the file of keys {str(path)!r} is no text; it has one key on a line: {_FORM}") from None
    except OSError as error:
        raise ConfigError(f"the file of keys {str(path)!r} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"the file of keys {str(path)!r}: {error}") from None


def keys_of(items: Iterable[str], path: str | None) -> tuple[SecretKey, ...]:
    """The keys of a setting, then those of its file. Raises ``ConfigError``."""
    try:
        keys = parse_keys(items) + (read_keys(path) if path else ())
    except ValueError as error:
        raise ConfigError(f"a list of keys is wrong: {error}") from None
    ids = [key.id for key in keys]
    for key_id in ids:
        if ids.count(key_id) > 1:
            raise ConfigError(
                f"the key {key_id!r} stands in the settings and in the file {path!r}; leave one of them out"
            )
    return keys


def mask_keys(value: object) -> object:
    """A setting of keys as it may be shown: ids, no secrets; what is of another form is masked whole."""
    if isinstance(value, str):
        return ",".join(_masked(item) for item in value.split(","))
    if isinstance(value, (list, tuple)):
        return [_masked(item) if isinstance(item, str) else MASK for item in value]
    return MASK


def _masked(item: str) -> str:
    key_id, colon, _ = item.strip().partition(":")
    return f"{key_id}:{MASK}" if colon and _ID.match(key_id) else MASK
