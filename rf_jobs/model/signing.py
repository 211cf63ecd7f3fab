"""Signing envelopes: HMAC-SHA256 over their bytes, so that whoever can write to the server alone can make no worker run
anything.

The signature is the envelope's last member, and covers all that stands before it as it lies in the store: it is checked before
anything is decoded.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence

from rf_jobs.words.errors import ForgedEnvelope, MissingKey
from rf_jobs.words.secret_keys import SecretKey

_DOMAIN = b"rf-jobs envelope\n"
_LAST = re.compile(rb',"sig":"([A-Za-z0-9_.-]{1,32}#[0-9a-f]{8}):([A-Za-z0-9+/]{43}=)"\}\Z')
_LONGEST = 128
"""Bytes of the last member."""


class Signer:
    """The signing keys of one process: the first signs, all of them check. ``required``: what is not signed is refused."""

    def __init__(self, keys: Sequence[SecretKey], *, required: bool) -> None:
        self._keys = {key.name: key.secret for key in keys}
        self._first = keys[0].name if keys else ""
        self._required = required

    def sign(self, data: bytes) -> bytes:
        """An envelope's bytes with the signature as their last member."""
        code = _code(self._keys[self._first], data)
        return b"".join((data[:-1], b',"sig":"', self._first.encode(), b":", code, b'"}'))

    def check(self, data: bytes) -> None:
        """Raises ``ForgedEnvelope`` for a wrong signature, or none where one is required; ``MissingKey`` for one by a key that
        is not known here, where one is required."""
        found = _LAST.search(data, max(0, len(data) - _LONGEST))
        if found is None:
            if self._required:
                raise ForgedEnvelope(
                    "the envelope is not signed, and signatures are required here (require_signatures)"
                )
            return
        name = found[1].decode()
        secret = self._keys.get(name)
        if secret is None:
            if self._required:
                here = ", ".join(self._keys)
                raise MissingKey(
                    f"it is signed with the key {name}, which is not in signing_keys of [jobs.security] here (keys: {here})"
                )
            return
        if not hmac.compare_digest(found[2], _code(secret, data[: found.start()] + b"}")):
            raise ForgedEnvelope(
                f"the envelope's signature with the key {name} is wrong: somebody changed it, or made it up"
            )

    def can_check(self, data: bytes) -> bool:
        """Whether ``check`` would come to a verdict."""
        try:
            self.check(data)
        except MissingKey:
            return False
        except ForgedEnvelope:
            return True
        return True


def _code(secret: bytes, data: bytes) -> bytes:
    return base64.b64encode(hmac.digest(secret, _DOMAIN + data, "sha256"))
