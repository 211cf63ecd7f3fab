"""What of a job class is sealed, and doing it: ``Encrypted`` fields one by one, or with ``encrypt=True`` the whole payload.

Only the fields of the job class itself can be sealed: a field's annotation is ``Encrypted[...]``, around all of its type.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import typing
from collections.abc import Iterator
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from rf_jobs.model.crypto import HOW_TO_GET_ONE, Keyring, bound_to
from rf_jobs.model.envelope import CLOSED_VERSION, Envelope, Seal
from rf_jobs.words.config_secrets import MASK
from rf_jobs.words.errors import InvalidOption, MissingKey, TamperedPayload

T = TypeVar("T")
SHORTEST_SCRUBBED = 4
"""Characters: shorter values are not looked for in what errors say, they would be found everywhere."""
MOST_SCRUBBED = 1_000
"""Values of one job that are looked for."""


class UnreadAnnotations(InvalidOption):
    """The annotations of a job class name what is not there, or not yet."""


class _Mark:
    def __repr__(self) -> str:
        return "Encrypted"


SEALED = _Mark()
Encrypted: TypeAlias = Annotated[T, SEALED]
"""A field that lies sealed in the store: ``ssn: Encrypted[str]``. To the handler and to type checkers it is a ``str``."""


@dataclasses.dataclass(frozen=True)
class Sealing:
    """What of one class is sealed; a class of which nothing is has none."""

    class_name: str
    fields: tuple[str, ...]
    """Sealed one by one; none: all of it, as one."""

    @property
    def whole(self) -> bool:
        """Whether the whole payload is sealed, and the result with it."""
        return not self.fields

    def hides(self, field: str) -> bool:
        """Whether this field's value is shown nowhere."""
        return self.whole or field in self.fields

    def seal(self, letter: Envelope, keyring: Keyring) -> None:
        """Seal the payload of an envelope, in place. Raises ``MissingKey``."""
        if not keyring.can_seal:
            what = "is encrypted" if self.whole else f"has encrypted fields ({', '.join(self.fields)})"
            raise MissingKey(f"{self.class_name} {what}, and there is no key to seal with; {HOW_TO_GET_ONE}")
        key, sealed = "", []
        if self.whole:
            key, letter.args = _sealed(keyring, letter, "payload", bytes(letter.args))
        else:
            members = msgspec.json.decode(letter.args, type=dict[str, msgspec.Raw])
            sealed = [name for name in self.fields if name in members]  # one that has its default may be left out
            for name in sealed:
                key, members[name] = _sealed(keyring, letter, "field", bytes(members[name]), name)
            if not sealed:
                return
            letter.args = msgspec.Raw(msgspec.json.encode(members))
        letter.enc = Seal(key, sealed)
        letter.v = CLOSED_VERSION

    def mark(self, letter: Envelope, keyring: Keyring) -> None:
        """Let what became of a job that was dispatched before its class was encrypted be treated as of the others. Raises
        ``MissingKey`` where that could not be done."""
        if self.whole and not keyring.can_seal:
            raise MissingKey(f"{self.class_name} is encrypted, and this worker has no key to seal its result with")
        letter.enc = Seal("", list(self.fields))


def _sealed(keyring: Keyring, letter: Envelope, kind: str, text: bytes, *place: str) -> tuple[str, msgspec.Raw]:
    key, box = keyring.seal(text, bound_to(kind, letter.id, letter.job, *place))
    return key, msgspec.Raw(b'"' + box + b'"')


def unseal(letter: Envelope, keyring: Keyring) -> None:
    """Open the payload of an envelope, in place; ``enc`` goes on saying what of it was sealed. Raises ``MissingKey`` or
    ``TamperedPayload``."""
    seal = letter.enc
    if seal is None or not seal.key:
        return
    try:
        if not seal.fields:
            letter.args = _opened(keyring, letter, msgspec.json.decode(letter.args, type=str), "payload")
            return
        members = msgspec.json.decode(letter.args, type=dict[str, msgspec.Raw])
        for name in seal.fields:
            members[name] = _opened(keyring, letter, msgspec.json.decode(members[name], type=str), "field", name)
    except (msgspec.MsgspecError, UnicodeError, KeyError):
        raise TamperedPayload("what the envelope says is sealed is not there, or is no sealed text") from None
    letter.args = msgspec.Raw(msgspec.json.encode(members))


def _opened(keyring: Keyring, letter: Envelope, box: str, kind: str, *place: str) -> msgspec.Raw:
    seal = letter.enc
    key = seal.key if seal is not None else ""
    return msgspec.Raw(keyring.open(key, box.encode(), bound_to(kind, letter.id, letter.job, *place)))


class Guard:
    """Keeps what is sealed out of what becomes of one job: its result, and what its errors say."""

    __slots__ = ("_job", "_keyring", "_letter", "_pattern")

    def __init__(self, letter: Envelope, job: Any, keyring: Keyring) -> None:
        self._letter = letter
        self._job = job
        self._keyring = keyring
        self._pattern: re.Pattern[str] | None = None

    def result(self, data: bytes) -> bytes:
        """The result as it may lie in the store."""
        whole = self._letter.enc is not None and not self._letter.enc.fields
        return self._keyring.seal_value("result", self._letter.id, data) if whole else data

    def scrub(self, text: str) -> str:
        """``text`` with the sealed values masked that it quotes word for word."""
        if self._job is None or not text:
            return text
        if self._pattern is None:
            fields = self._letter.enc.fields if self._letter.enc is not None else []
            names = fields or [field.name for field in dataclasses.fields(self._job)]
            self._pattern = _pattern_of([getattr(self._job, name, None) for name in names])
        return self._pattern.sub(MASK, text)


def _pattern_of(values: list[Any]) -> re.Pattern[str]:
    words: set[str] = set()
    for leaf in _leaves(values):
        text = str(leaf)
        words |= {form for form in (text, repr(text)[1:-1]) if len(form) >= SHORTEST_SCRUBBED}
        if len(words) >= MOST_SCRUBBED:
            break
    return re.compile("|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)) or r"(?!)")


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, bytes):
        yield value.decode("utf-8", "replace")
        return
    with contextlib.suppress(Exception):  # what msgspec can't take apart is one leaf
        value = msgspec.to_builtins(value, builtin_types=(bytes,), str_keys=True, enc_hook=_apart)
    if isinstance(value, dict):
        for each in value.values():
            yield from _leaves(each)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for each in value:
            yield from _leaves(each)
    elif value is not None and not isinstance(value, bool):
        yield value


def _apart(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if dump is not None else str(value)


# --- what a class says -----------------------------------------------------------------------------------------------


def sealing_of(cls: type[Any], *, whole: bool) -> Sealing | None:
    """What of a job class is sealed; None where nothing is.

    Raises ``InvalidOption`` where ``Encrypted`` stands inside a field's type: nothing would be sealed there; and
    ``UnreadAnnotations``.
    """
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception as error:  # a name that is not there, or whatever evaluating it raises
        raise UnreadAnnotations(
            f"class {cls.__qualname__}: its annotations can't be read at run time ({error}); define or import what they name"
        ) from None
    names = [field.name for field in dataclasses.fields(cls)]
    found = []
    for name in names:
        hint = hints.get(name)
        inner = typing.get_args(hint)[0] if _is_marked(hint) else hint
        if _hides_inside(inner, set()):
            raise InvalidOption(
                f"class {cls.__qualname__}: field {name!r} has Encrypted inside its type, where nothing would be sealed;"
                f" put it around the whole type, as in `{name}: Encrypted[...]`, or pass encrypt=True"
            )
        if _is_marked(hint):
            found.append(name)
    if whole:
        return Sealing(cls.__qualname__, ())
    return Sealing(cls.__qualname__, tuple(found)) if found else None


def _is_marked(hint: Any) -> bool:
    return typing.get_origin(hint) is Annotated and SEALED in typing.get_args(hint)[1:]


def _hides_inside(hint: Any, seen: set[Any]) -> bool:
    """Whether the mark stands anywhere in a type: in its arguments, or in the fields of classes that it names."""
    if _is_marked(hint):
        return True
    if any(_hides_inside(each, seen) for each in typing.get_args(hint) if not isinstance(each, str)):
        return True
    fields = (
        hasattr(hint, "__dataclass_fields__") or hasattr(hint, "__struct_fields__") or hasattr(hint, "model_fields")
    )
    if not isinstance(hint, type) or hint in seen or not (fields or hasattr(hint, "__required_keys__")):
        return False
    seen.add(hint)
    with contextlib.suppress(Exception):  # what can't be resolved here, the codec will tell
        return any(_hides_inside(each, seen) for each in typing.get_type_hints(hint, include_extras=True).values())
    return False
