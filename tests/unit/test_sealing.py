"""Sealing, opening and signing: pure functions, and the files that every later version must open."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from rf_jobs import (
    ConfigError,
    Encrypted,
    ForgedEnvelope,
    InvalidOption,
    Job,
    JobContext,
    MissingKey,
    SecuritySettings,
    SerializationError,
    TamperedPayload,
)
from rf_jobs.client.protection import Protection
from rf_jobs.core.revealing import Words, revealed, revealed_message, sealed_message
from rf_jobs.model import codec
from rf_jobs.model import envelope as wire
from rf_jobs.model.crypto import Keyring, bound_to
from rf_jobs.model.envelope import Envelope, Seal
from rf_jobs.model.sealing import Guard, Sealing, unseal
from rf_jobs.model.signing import Signer
from rf_jobs.words.secret_keys import SecretKey

GOLDEN = Path(__file__).parents[1] / "golden"
ID = "01936f4e-5c7a-7b3e-9d2f-0a1b2c3d4e5f"
KEY, OTHER = SecretKey("2026-a", bytes(range(32))), SecretKey("2027-b", bytes(range(1, 33)))
SIGNING = SecretKey("sign-1", bytes(range(32, 64)))
RING = Keyring([KEY])
PLAIN = {"to": "ada@example.org", "n": 7}


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.json").read_bytes().strip()


def letter_with(args: object, job_id: str = ID, job: str = "shop.mail:Welcome") -> Envelope:
    return Envelope(1, job_id, job, "emails", 1732406400000, msgspec.Raw(msgspec.json.encode(args)))


# --- the files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "fields"), [("sealed_field", ("to",)), ("sealed_payload", ())])
def test_sealed_files_open_and_are_still_written_so(name: str, fields: tuple[str, ...]) -> None:
    letter = wire.decode(golden(name))
    assert letter.enc == Seal(KEY.name, list(fields))
    assert wire.payload(letter) == ({"to": "***", "n": 7} if fields else "***")
    unseal(letter, RING)
    assert msgspec.json.decode(letter.args) == PLAIN
    fresh = letter_with(PLAIN)
    Sealing("Welcome", fields).seal(fresh, RING)
    assert wire.encode(fresh) == golden(name)


def test_the_signed_file_is_right_and_is_still_written_so() -> None:
    signer = Signer([SIGNING], required=True)
    signer.check(golden("signed"))
    assert signer.sign(wire.encode(letter_with(PLAIN))) == golden("signed")
    assert wire.payload(wire.decode(golden("signed"))) == PLAIN


def test_the_offloaded_file_leads_to_its_payload() -> None:
    Signer([SIGNING], required=True).check(golden("offloaded"))
    letter = wire.decode(golden("offloaded"))
    data = (GOLDEN / "offloaded.payload").read_bytes()
    assert letter.off is not None
    assert (letter.off.ref, letter.off.size) == (f"{ID}.0123456789abcdef", len(data))
    letter.args = msgspec.Raw(data)
    unseal(letter, RING)
    assert msgspec.json.decode(letter.args) == PLAIN


def test_the_page_says_enough_to_read_and_write_them() -> None:
    """docs/wire-format.md, followed to the letter and without our code."""
    letter = json.loads(golden("sealed_field"))
    fingerprint = hashlib.sha256(b"rf-jobs key" + KEY.secret).hexdigest()[:8]
    assert letter["enc"]["key"] == f"{KEY.id}#{fingerprint}"
    data = "\n".join(["rf-jobs/1", "field", letter["id"], letter["job"], "to"]).encode()
    text = b'"ada@example.org"'
    nonces = hmac.digest(KEY.secret, b"rf-jobs nonces", "sha256")
    nonce = hmac.digest(nonces, len(data).to_bytes(4, "big") + data + text, "sha256")[:12]
    assert base64.b64decode(letter["args"]["to"]) == nonce + AESGCM(KEY.secret).encrypt(nonce, text, data)
    signed = golden("signed")
    body, _, rest = signed.rpartition(b',"sig":"')
    name, _, code = rest.removesuffix(b'"}').partition(b":")
    assert name.decode() == f"{SIGNING.id}#{hashlib.sha256(b'rf-jobs key' + SIGNING.secret).hexdigest()[:8]}"
    assert base64.b64decode(code) == hmac.digest(SIGNING.secret, b"rf-jobs envelope\n" + body + b"}", "sha256")
    offloaded = json.loads(golden("offloaded"))["off"]
    assert hashlib.sha256((GOLDEN / "offloaded.payload").read_bytes()).hexdigest() == offloaded["sha256"]


def test_random_nonces_open_too() -> None:
    bound = bound_to("field", ID, "a", "b")
    for fill in range(3):
        nonce = bytes([fill]) * 12
        box = base64.b64encode(nonce + AESGCM(KEY.secret).encrypt(nonce, b"text", bound))
        assert RING.open(KEY.name, box, bound) == b"text"


# --- sealing ------------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300), st.binary(max_size=30))
def test_what_is_sealed_opens_in_its_place_alone(text: bytes, place: bytes) -> None:
    name, box = RING.seal(text, place)
    assert RING.open(name, box, place) == text
    assert RING.seal(text, place) == (name, box), "the same again"
    with pytest.raises(TamperedPayload):
        RING.open(name, box, place + b"x")


@given(st.text(max_size=40), st.integers(0, 500), st.integers(1, 255))
def test_a_changed_byte_is_noticed(text: str, at: int, by: int) -> None:
    name, box = RING.seal(text.encode(), b"place")
    data = bytearray(base64.b64decode(box))
    data[at % len(data)] ^= by
    with pytest.raises(TamperedPayload, match="was changed"):
        RING.open(name, base64.b64encode(bytes(data)), b"place")


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), min_size=2, unique=True))
def test_no_nonce_serves_two_texts(texts: list[tuple[str, str]]) -> None:
    boxes = [RING.seal(text.encode(), bound_to("field", place))[1] for text, place in texts]
    nonces = [base64.b64decode(box)[:12] for box in boxes]
    assert len(set(nonces)) == len(texts)


@given(
    st.dictionaries(
        st.text(max_size=8), st.integers() | st.text(max_size=20) | st.none() | st.lists(st.text(max_size=5))
    ),
    st.data(),
)
def test_any_payload_is_the_same_afterwards(payload: dict[str, Any], data: st.DataObject) -> None:
    fields = data.draw(st.lists(st.sampled_from(sorted(payload)), unique=True)) if payload else []
    letter = letter_with(payload)
    Sealing("Any", tuple(fields)).seal(letter, RING)
    letter = wire.decode(wire.encode(letter))
    unseal(letter, RING)
    assert msgspec.json.decode(letter.args) == payload


def test_a_field_that_is_left_out_is_not_sealed() -> None:
    """What msgspec made has no attribute of its own where a field has its default, and is written without."""
    sealing = Sealing("Any", ("a", "b"))
    for payload, fields in (({"a": 1}, ["a"]), ({"a": 1, "b": 2}, ["a", "b"])):
        letter = letter_with(payload)
        sealing.seal(letter, RING)
        assert letter.enc == Seal(KEY.name, fields)
        unseal(letter, RING)
        assert msgspec.json.decode(letter.args) == payload
    letter = letter_with({"c": 3})
    sealing.seal(letter, RING)
    assert (letter.enc, letter.v, msgspec.json.decode(letter.args)) == (None, 1, {"c": 3})


def test_each_place_is_its_own() -> None:
    assert (
        len(
            {
                bound_to("field", "a", "b"),
                bound_to("field", "ab", ""),
                bound_to("payload", "a", "b"),
                bound_to("field", "a"),
            }
        )
        == 4
    )


def test_the_first_key_seals_and_all_open() -> None:
    both = Keyring([OTHER, KEY])
    name, box = RING.seal(b"old", b"p")
    assert both.open(name, box, b"p") == b"old"
    name, box = both.seal(b"new", b"p")
    assert name == OTHER.name
    with pytest.raises(MissingKey, match=r"key 2027-b#\w{8}, which is not in encryption_keys"):
        RING.open(name, box, b"p")


def test_another_secret_under_the_same_id_is_another_key() -> None:
    impostor = Keyring([SecretKey(KEY.id, bytes(32))])
    name, box = RING.seal(b"x", b"p")
    assert not impostor.knows(name)
    with pytest.raises(MissingKey, match="another secret"):
        impostor.open(name, box, b"p")


def test_an_empty_keyring_refuses() -> None:
    with pytest.raises(MissingKey, match="rf-jobs keys new"):
        Keyring().seal(b"x", b"p")
    with pytest.raises(MissingKey, match="keys: none"):
        Keyring().open(KEY.name, b"x", b"p")


@pytest.mark.parametrize("args", [b"{}", b"[]", b'"x"', b'{"to":7}', b'{"to":"not base64"}', b'{"to":""}', b"7", b"{"])
@pytest.mark.parametrize("fields", [[], ["to"]])
def test_whatever_stands_there_is_opened_or_refused(args: bytes, fields: list[str]) -> None:
    letter = letter_with({})
    letter.args, letter.enc = msgspec.Raw(args), Seal(KEY.name, fields)
    with pytest.raises(TamperedPayload):
        unseal(letter, RING)


# --- what is kept beside a job --------------------------------------------------------------------------------------------


def test_values_are_bound_to_their_kind_and_job() -> None:
    sealed = RING.seal_value("result", ID, b'{"a":1}')
    assert sealed.startswith(b"sealed:2026-a#")
    assert RING.open_value("result", ID, sealed) == b'{"a":1}'
    assert RING.open_value("result", ID, b'{"a":1}') == b'{"a":1}', "what is not sealed is as it is"
    for kind, job_id in (("checkpoint", ID), ("result", "another")):
        with pytest.raises(TamperedPayload):
            RING.open_value(kind, job_id, sealed)


def test_values_are_masked_for_those_without_the_key() -> None:
    sealed = RING.seal_value("result", ID, b"7")
    for ring in (None, Keyring(), Keyring([OTHER])):
        assert revealed(ring, "result", ID, sealed) == b'"***"'
    assert revealed(RING, "result", "another", sealed) == b'"***"'
    assert revealed(RING, "result", ID, sealed) == b"7"
    assert revealed(None, "result", ID, None) is None


@pytest.mark.parametrize(
    "data",
    [b'{"message":"sealed:', b'{"message":"sealed:"}', b'[{"message":"sealed:x"}]', b'{"x":{"message":"sealed:x"}}'],
)
def test_a_message_that_only_looks_sealed_does_no_harm(data: bytes) -> None:
    shown = revealed_message(RING, "log", ID, data)
    assert shown in (data, b'{"message":"***"}')


def test_a_sealed_message_has_its_fields() -> None:
    text = sealed_message(RING, "log", ID, Words("hello", {"a": 1}))
    line = msgspec.json.encode({"level": 20, "message": text})
    assert msgspec.json.decode(revealed_message(RING, "log", ID, line) or b"") == {
        "level": 20,
        "message": "hello",
        "fields": {"a": 1},
    }
    assert msgspec.json.decode(revealed_message(None, "log", ID, line) or b"") == {"level": 20, "message": "***"}


# --- classes --------------------------------------------------------------------------------------------------------------


class Quiet(Job, name="sealing:Quiet"):
    number: int
    name: Encrypted[str]
    born: Encrypted[date | None] = None

    async def handle(self, ctx: JobContext) -> str:
        return self.name


class Silent(Quiet, name="sealing:Silent", encrypt=True):
    pass


class Open(Job, name="sealing:Open"):
    name: str

    async def handle(self, ctx: JobContext) -> None: ...


def test_what_a_class_says() -> None:
    assert Quiet.__job_class__.sealing == Sealing("Quiet", ("name", "born"))
    assert Silent.__job_class__.sealing == Sealing("Silent", ())
    assert Open.__job_class__.sealing is None
    silent, quiet = Silent.__job_class__.sealing, Quiet.__job_class__.sealing
    assert silent is not None
    assert silent.whole
    assert quiet is not None
    assert not quiet.whole


def test_repr_masks() -> None:
    assert repr(Quiet(number=1, name="x")) == "Quiet(number=1, name=***, born=***)"
    assert repr(Silent(number=1, name="x")) == "Silent(number=***, name=***, born=***)"
    assert repr(Open(name="x")) == "Open(name='x')"


@dataclasses.dataclass
class Nested:
    inner: Encrypted[int]


class Struct(msgspec.Struct):
    inner: list[Nested]


@pytest.mark.parametrize(
    "hint", [list[Encrypted[str]], Encrypted[str] | None, Nested, Encrypted[list[Encrypted[str]]], dict[str, Struct]]
)
def test_encrypted_inside_a_type_is_refused(hint: Any) -> None:
    with pytest.raises(InvalidOption, match=r"field 'x' has Encrypted inside its type.*x: Encrypted\[\.\.\.\]"):
        type("Inside", (Job,), {"__annotations__": {"x": hint}, "handle": lambda self, ctx: None})


def test_encrypt_is_true_or_false() -> None:
    with pytest.raises(InvalidOption, match="encrypt is 'yes'"):

        class Wrong(Job, encrypt="yes"):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            async def handle(self, ctx: JobContext) -> None: ...


class Early(Job, name="sealing:Early"):
    """Names in its annotations what is defined below it."""

    later: Encrypted[Later]

    async def handle(self, ctx: JobContext) -> None: ...


assert repr(Early.__new__(Early)).startswith("Early(later=***")


@dataclasses.dataclass
class Later:
    x: int


def test_a_forward_reference_is_found_when_it_is_needed() -> None:
    assert Early.__job_class__.sealing == Sealing("Early", ("later",))
    entry = Early.__job_class__
    assert codec.decode_payload(entry, codec.encode_payload(Early(later=Later(1)), entry), 1) == Early(later=Later(1))


def test_what_is_sealed_is_not_quoted_by_errors() -> None:
    entry, whole = Quiet.__job_class__, Silent.__job_class__
    wrong: Any = "canary"
    for job in (Quiet(number=1, name="x", born=wrong), Silent(number=wrong, name="x")):
        with pytest.raises(SerializationError, match="not shown") as caught:
            codec.encode_payload(job, job.__job_class__)
        assert "canary" not in str(caught.value)
    with pytest.raises(SerializationError, match="field 'number': expected `int`, got `str`"):
        codec.encode_payload(Quiet(number=wrong, name="x"), entry)
    for payload in (b'{"number":1,"name":"x","born":"canary"}', b'{"number":1}', b"{"):
        with pytest.raises(SerializationError) as caught:
            codec.decode_payload(whole, payload, 1)
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_guard_masks_what_is_quoted_word_for_word() -> None:
    letter = letter_with({})
    letter.enc = Seal(KEY.name, ["name", "born"])
    job = Quiet(number=123456, name="it's\nme", born=date(2000, 1, 2))
    said = Guard(letter, job, RING).scrub(f"{job.name} {job.name!r} of {job.born} is {job.number}")
    assert said in ("*** '***' of *** is 123456", '*** "***" of *** is 123456')
    letter.enc = Seal(KEY.name, [])
    assert Guard(letter, Silent(number=123456, name="me"), RING).scrub("me, 123456") == "me, ***", (
        "too short to look for"
    )
    assert Guard(letter, None, RING).scrub("text") == "text"


def test_a_guard_seals_the_result_of_a_sealed_payload_alone() -> None:
    letter = letter_with({})
    letter.enc = Seal(KEY.name, ["name"])
    assert Guard(letter, None, RING).result(b"7") == b"7"
    letter.enc = Seal(KEY.name, [])
    assert Guard(letter, None, RING).result(b"7").startswith(b"sealed:")


# --- signing ----------------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200).map(lambda text: b'{"v":1,"x":"' + base64.b64encode(text) + b'"}'), st.data())
def test_a_signature_covers_every_byte(data: bytes, draw: st.DataObject) -> None:
    signer = Signer([SIGNING], required=True)
    signed = signer.sign(data)
    signer.check(signed)
    at = draw.draw(st.integers(0, len(signed) - 1))
    other = draw.draw(st.integers(0, 255).filter(lambda byte: byte != signed[at]))
    with pytest.raises((ForgedEnvelope, MissingKey)):
        signer.check(signed[:at] + bytes([other]) + signed[at + 1 :])


def test_signing_what_is_required_and_what_is_not() -> None:
    data = wire.encode(letter_with(PLAIN))
    strict, lax = Signer([SIGNING], required=True), Signer([SIGNING], required=False)
    lax.check(data)
    with pytest.raises(ForgedEnvelope, match="not signed"):
        strict.check(data)
    elsewhere = Signer([OTHER], required=True).sign(data)
    lax.check(elsewhere)
    with pytest.raises(MissingKey, match="signed with the key 2027-b#"):
        strict.check(elsewhere)
    assert not strict.can_check(elsewhere)
    for decided in (data, strict.sign(data), strict.sign(data).replace(b"ada", b"eve")):
        assert strict.can_check(decided)


def test_a_signed_envelope_is_an_envelope() -> None:
    letter = wire.decode(Signer([SIGNING], required=True).sign(wire.encode(letter_with(PLAIN))))
    assert wire.payload(letter) == PLAIN


# --- together -----------------------------------------------------------------------------------------------------------------


def protection(**given: Any) -> Protection:
    return Protection(SecuritySettings(**given))


def test_keys_come_from_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# the newest first\n{OTHER.text()}\n\n{KEY.text()}\n")
    from_file = protection(encryption_keys_file=str(path))
    letter = wire.decode(golden("sealed_field"))
    from_file.unseal(letter, Quiet.__job_class__)
    assert msgspec.json.decode(letter.args) == PLAIN
    assert from_file.keyring.seal(b"x", b"p")[0] == OTHER.name
    with pytest.raises(ConfigError, match=r"stands in the settings and in the file"):
        protection(encryption_keys=(KEY.text(),), encryption_keys_file=str(path))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "cannot be read: No such file"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is no text"),
        (lambda path: path.write_text("hunter2"), "key 1 is not of the form id:base64"),
        (lambda path: path.write_text("a:hunter2"), "the secret of key 'a' is no base64|has 5 bytes"),
        (lambda path: path.mkdir(), "cannot be read"),
    ],
)
def test_a_file_that_holds_no_keys(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    make(tmp_path / "keys")
    with pytest.raises(ConfigError, match=said) as caught:
        protection(signing_keys_file=str(tmp_path / "keys"))
    assert "hunter2" not in str(caught.value)


def test_keys_without_the_package_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ConfigError, match=r"pip install 'rf-jobs\[crypto\]'"):
        Keyring([KEY])
    assert not Keyring().can_seal
