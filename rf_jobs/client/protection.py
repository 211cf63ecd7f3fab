"""What protects jobs on their way through the server: keys that seal, and keys that sign.

On the way out a payload is sealed, then its envelope signed. On the way in the signature is checked before anything is
decoded.
"""

from __future__ import annotations

from rf_jobs.model import envelope
from rf_jobs.model.crypto import Keyring
from rf_jobs.model.envelope import Envelope
from rf_jobs.model.jobclass import JobClass
from rf_jobs.model.sealing import unseal
from rf_jobs.model.signing import Signer
from rf_jobs.words.config_settings import SecuritySettings
from rf_jobs.words.errors import (
    ConfigError,
    ForgedEnvelope,
    MissingKey,
    MissingPayloadStore,
    PayloadLost,
    TamperedPayload,
)
from rf_jobs.words.secret_keys import keys_of

REASONS: tuple[tuple[type[Exception], str], ...] = (
    (ForgedEnvelope, "forged"),
    (TamperedPayload, "tampered"),
    (PayloadLost, "payload_lost"),
)
"""Why a job is buried that can't be opened; others are simply damaged."""
PARKED: tuple[tuple[type[Exception], str], ...] = (
    (MissingKey, "unknown_key"),
    (MissingPayloadStore, "no_payload_store"),
)
"""Why a job is parked that another worker may be able to open."""


class Protection:
    """The keys of one process at work. Without any it seals nothing and signs nothing, and refuses what has to be sealed."""

    def __init__(self, security: SecuritySettings) -> None:
        """Raises ``ConfigError`` for keys that can't be read, or are missing."""
        self.keyring = Keyring(keys_of(security.encryption_keys, security.encryption_keys_file))
        signing = keys_of(security.signing_keys, security.signing_keys_file)
        if security.require_signatures and not signing:
            raise ConfigError("require_signatures is on, and there is no key to check them with; set signing_keys too")
        self.signer = Signer(signing, required=security.require_signatures) if signing else None

    @property
    def plain(self) -> bool:
        """Whether nothing is done to the envelope of a class of which nothing is sealed."""
        return self.signer is None

    # --- out -------------------------------------------------------------------------------------------------------

    def encode(self, letter: Envelope, entry: JobClass) -> bytes:
        """An envelope's bytes: sealed where its class is, and signed. Raises ``MissingKey``."""
        if entry.sealing is not None:
            entry.sealing.seal(letter, self.keyring)
        return self.signed(letter)

    def signed(self, letter: Envelope) -> bytes:
        """An envelope's bytes as they are, signed where there is a key for that."""
        data = envelope.encode(letter)
        return data if self.signer is None else self.signer.sign(data)

    # --- in --------------------------------------------------------------------------------------------------------

    def read(self, job_id: str, data: bytes) -> Envelope:
        """A job's envelope. Raises ``ForgedEnvelope`` or ``MissingKey`` before anything in it is decoded, else
        ``SerializationError``."""
        if self.signer is None:
            return envelope.decode(data)
        self.signer.check(data)
        letter = envelope.decode(data)
        if letter.id != job_id:
            raise ForgedEnvelope(f"the envelope is that of job {letter.id[:60]}; somebody copied it here")
        return letter

    def unseal(self, letter: Envelope, entry: JobClass) -> None:
        """Open what is sealed, in place. Raises ``MissingKey`` or ``TamperedPayload``."""
        if letter.enc is not None:
            unseal(letter, self.keyring)
        elif entry.sealing is not None:
            entry.sealing.mark(letter, self.keyring)

    def serves(self, letter: Envelope, data: bytes, entry: JobClass) -> bool:
        """Whether a parked job of this class could be opened here, as far as keys go."""
        if letter.enc is not None and letter.enc.key:
            opens = self.keyring.knows(letter.enc.key)
        else:
            opens = self.keyring.can_seal or not entry.options.encrypt
        return opens and (self.signer is None or self.signer.can_check(data))


def burial(error: Exception) -> str:
    """The reason for which a job is buried that can't be opened."""
    return next((reason for kind, reason in REASONS if isinstance(error, kind)), "decode")


def parking(error: MissingKey | MissingPayloadStore) -> str:
    """The reason for which a job is parked that can't be opened here."""
    return f"{next(reason for kind, reason in PARKED if isinstance(error, kind))}: {error}"[:200]


def too_large(job_class: str, size: int, limit: int) -> str:
    """What to say of a job that is refused for its size."""
    return (
        f"{job_class} takes {size} bytes, the limit (max_payload_bytes) is {limit};"
        " keep large data elsewhere and dispatch a reference to it, or set offload_above_bytes"
    )
