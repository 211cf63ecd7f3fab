"""Sealing and opening, by AES-256-GCM of the package ``cryptography``. The package is imported when there are keys.

Everything is bound to its place: what was sealed for one job, class and field opens nowhere else. The nonce is derived from
the place and the text by a key of its own, so that the same job sent again has the same bytes, and no nonce ever serves two
texts.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from typing import Any

from rf_jobs.words.errors import ConfigError, MissingKey, TamperedPayload
from rf_jobs.words.secret_keys import SecretKey

NONCE_BYTES = 12
_VALUE = b"sealed:"
"""Begins a sealed result, checkpoint or progress message; JSON begins otherwise."""


def bound_to(kind: str, *place: str) -> bytes:
    """What a sealed text is bound to, beside the key: its kind and its place."""
    return "\n".join(("rf-jobs/1", kind, *place)).encode("utf-8", "surrogatepass")


class _Box:
    """One key at work."""

    def __init__(self, key: SecretKey, cipher: Any) -> None:
        self.name = key.name
        self._cipher = cipher
        self._digests = hmac.digest(key.secret, b"rf-jobs digests", "sha256")
        self._nonces = hmac.digest(key.secret, b"rf-jobs nonces", "sha256")

    def seal(self, text: bytes, bound: bytes) -> bytes:
        place = len(bound).to_bytes(4, "big") + bound
        nonce = hmac.digest(self._nonces, place + text, "sha256")[:NONCE_BYTES]
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, text, bound))

    def blur(self, digest: str) -> str:
        return hmac.digest(self._digests, digest.encode(), "sha256").hex()[: len(digest)]

    def open(self, box: bytes, bound: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 (an extra)

        try:
            data = base64.b64decode(box, validate=True)
            plain: bytes = self._cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], bound)
        except (InvalidTag, binascii.Error, ValueError):
            raise TamperedPayload(
                f"what was sealed with the key {self.name} was changed, or belongs to another job or field;"
                " whoever did that can write to the server"
            ) from None
        return plain


class Keyring:
    """The keys of one process: the first seals, all of them open. Empty, it refuses both."""

    def __init__(self, keys: Sequence[SecretKey] = ()) -> None:
        """Raises ``ConfigError`` where there are keys and no ``cryptography``."""
        self._boxes = {key.name: _Box(key, _cipher(key)) for key in keys}
        self._first = next(iter(self._boxes.values()), None)

    @property
    def can_seal(self) -> bool:
        """Whether there is a key."""
        return self._first is not None

    def knows(self, name: str) -> bool:
        """Whether what was sealed with the key of this name can be opened."""
        return name in self._boxes

    def seal(self, text: bytes, bound: bytes) -> tuple[str, bytes]:
        """The key's name, and the text sealed with it, in base64. Raises ``MissingKey``."""
        if self._first is None:
            raise MissingKey(f"there is no key to seal with; {HOW_TO_GET_ONE}")
        return self._first.name, self._first.seal(text, bound)

    def blur(self, digest: str) -> str:
        """A digest that nobody without the key can compute: of another key it is another. Raises ``MissingKey``."""
        if self._first is None:
            raise MissingKey(f"there is no key for the digest of an encrypted job; {HOW_TO_GET_ONE}")
        return self._first.blur(digest)

    def open(self, name: str, box: bytes, bound: bytes) -> bytes:
        """The text. Raises ``MissingKey`` or ``TamperedPayload``."""
        found = self._boxes.get(name)
        if found is None:
            raise MissingKey(self._missing(name))
        return found.open(box, bound)

    def _missing(self, name: str) -> str:
        key_id = name.partition("#")[0]
        if any(known.partition("#")[0] == key_id for known in self._boxes):
            return f"it is sealed with the key {name}, and the key {key_id!r} here has another secret"
        here = ", ".join(self._boxes) or "none"
        return (
            f"it is sealed with the key {name}, which is not in encryption_keys of [jobs.security] here (keys: {here})"
        )

    # --- what is kept beside a job -------------------------------------------------------------------------------

    def seal_value(self, kind: str, job_id: str, data: bytes) -> bytes:
        """A job's result, checkpoint and the like, sealed for the store. Raises ``MissingKey``."""
        name, box = self.seal(data, bound_to(kind, job_id))
        return _VALUE + name.encode() + b":" + box

    def open_value(self, kind: str, job_id: str, data: bytes) -> bytes:
        """The same as it was; what is not sealed is answered as it is. Raises ``MissingKey`` or ``TamperedPayload``."""
        if not is_sealed(data):
            return data
        name, _, box = data[len(_VALUE) :].partition(b":")
        return self.open(name.decode("utf-8", "replace"), box, bound_to(kind, job_id))


HOW_TO_GET_ONE = "set encryption_keys in [jobs.security], with what `rf-jobs keys new` prints"


def is_sealed(data: bytes) -> bool:
    """Whether a stored value is sealed."""
    return data.startswith(_VALUE)


def _cipher(key: SecretKey) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 (an extra)
    except ImportError:
        raise ConfigError(
            "encryption_keys are set, and the package cryptography is not installed; pip install 'rf-jobs[crypto]'"
        ) from None
    return AESGCM(key.secret)
