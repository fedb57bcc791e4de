"""Cases of recovery.json: alice's account, with bob and carol among her contacts."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from e2ee.cli.vectors.cases.mutations import flip, invalid, put, valid
from e2ee.cli.vectors.cases.people import NOW, Person, person
from e2ee.cli.vectors.drawn import drawn
from e2ee.cli.vectors.model import Case, CaseGroup, JsonObject
from e2ee.cli.vectors.operations import recovery
from e2ee.primitives import aead, kdf
from e2ee.recovery import ExportFile, Purpose, RecoveryCode, seal_export
from e2ee.transfer import ExportPayload
from e2ee.wire.contacts import ContactEntry, DecisionEntry
from e2ee.wire.identifiers import UserId

ALICE: Final = person("alice")
BOB: Final = person("bob")
CAROL: Final = person("carol")
SECRET: Final = drawn("recovery: code", 20)
NONCE: Final = drawn("recovery: nonce", 12)
_HEADER: Final = 1 + 1 + 5 + 32


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(recovery.WRITE, "codes for paper", tuple(_written()))
    yield CaseGroup(recovery.READ, "codes as typed", tuple(_read()))
    yield CaseGroup(recovery.SEAL, "exports", tuple(_sealed()))
    yield CaseGroup(recovery.OPEN, "exports that open", tuple(_opened()))
    yield CaseGroup(recovery.OPEN, "exports that are refused", tuple(_refused()))


def _written() -> Iterator[Case]:
    yield valid("a code", {"secret": SECRET.hex()})
    yield valid("zeros", {"secret": bytes(20).hex()}, "Boundary")


def _read() -> Iterator[Case]:
    text = RecoveryCode(SECRET).text()
    bare = text.replace("-", "")
    yield valid("as it is written", {"text": text})
    yield valid("in lower case without hyphens", {"text": bare.lower()})
    yield valid("with spaces", {"text": text.replace("-", "  ")})
    yield invalid("another letter", "decode", {"text": ("B" if bare[0] == "A" else "A") + bare[1:]}, "InvalidText")
    yield invalid("a letter less", "decode", {"text": bare[:-1]}, "Truncated")
    yield invalid("a letter more", "decode", {"text": bare + "A"}, "TrailingBytes")
    yield invalid("a digit that base32 lacks", "decode", {"text": "0" + bare[1:]}, "InvalidText")
    yield invalid("nothing", "decode", {"text": ""}, "Truncated")


def _contact(who: Person, *, verified: bool = False, forked: bool = False) -> ContactEntry:
    key = who.account.account_key_pair.public
    return ContactEntry(who.user_id, key, verified, forked, who.device_list().signed)


def _payload(**changes: object) -> ExportPayload:
    bob, carol = BOB.account.account_key_pair.public, CAROL.account.account_key_pair.public
    honest = ExportPayload(
        ALICE.account.account_key_pair,
        ALICE.device_list().signed,
        1,
        (_contact(BOB, verified=True), _contact(CAROL, forked=True)),
        (DecisionEntry(BOB.user_id, 1, bob, NOW), DecisionEntry(CAROL.user_id, 1, carol, NOW + 1)),
    )
    return replace(honest, **changes)  # type: ignore[arg-type]  # names and types are the cases'


def _given(payload: ExportPayload, purpose: str = "export") -> JsonObject:
    return {
        "secret": SECRET.hex(),
        "purpose": purpose,
        "user_id": "alice",
        "nonce": NONCE.hex(),
        "payload": recovery.payload_json(payload),
    }


def _payloads() -> Iterator[tuple[str, ExportPayload, str]]:
    yield "two contacts", _payload(), "Normal"
    yield "nobody yet", _payload(contacts=(), decisions=(), policy=0), "Boundary"
    later = ((1, b"history"), (200, b""))
    yield "sections of kinds that are not defined: kept, and not acted on", _payload(sections=later), "UnknownKind"


def _sealed() -> Iterator[Case]:
    for comment, payload, flag in _payloads():
        yield valid(comment, _given(payload), flag)
    yield valid("what a key server keeps", _given(_alone(), "recovery"))


def _file(payload: ExportPayload | bytes, user_id: str = "alice") -> bytes:
    if isinstance(payload, ExportPayload):
        return seal_export(RecoveryCode(SECRET), UserId(user_id), payload, lambda _: NONCE).encode()
    header = _file(_payload())[:_HEADER]
    key = kdf.hkdf_sha512(b"", SECRET, Purpose.EXPORT.value, 32)
    return header + NONCE + aead.seal(key, NONCE, payload, header)


def _alone() -> ExportPayload:
    return _payload(contacts=(), decisions=(), policy=0)


def _blob() -> bytes:
    return seal_export(RecoveryCode(SECRET), UserId("alice"), _alone(), lambda _: NONCE, Purpose.RECOVERY).encode()


def _export(data: bytes, purpose: str = "export") -> JsonObject:
    return {"secret": SECRET.hex(), "purpose": purpose, "export": data.hex()}


def _opened() -> Iterator[Case]:
    for comment, payload, flag in _payloads():
        yield valid(comment, _export(_file(payload)), flag)
    yield valid("what a key server keeps", _export(_blob(), "recovery"))


def _refused() -> Iterator[Case]:
    honest, plain = _file(_payload()), _payload().encode()
    yield invalid("version 2", "decode", _export(b"\x02" + honest[1:]), "UnknownVersion")
    yield invalid("cut in the tag", "decode", _export(honest[: _HEADER + 12 + 15]), "Truncated")
    other = {**_export(honest), "secret": drawn("recovery: another code", 20).hex()}
    yield invalid("another code", "authentication", other, "WrongKey")
    yield invalid("an export for what a key server keeps", "authentication", _export(honest, "recovery"), "WrongLabel")
    yield invalid("what a key server keeps for an export", "authentication", _export(_blob()), "WrongLabel")
    for name, at in {"user id": 3, "account key": 8, "nonce": _HEADER, "ciphertext": _HEADER + 12, "tag": -1}.items():
        yield invalid(f"{name} changed", "authentication", _export(flip(honest, at)), "ModifiedCiphertext")
    yield invalid("a byte more", "authentication", _export(honest + b"\0"), "TrailingBytes")
    yield invalid("version 2 of the payload", "decode", _export(_file(put(plain, 0, b"\x02"))), "UnknownVersion")
    yield invalid("an empty payload", "decode", _export(_file(b"")), "Truncated")
    yield invalid("a payload with a byte more", "decode", _export(_file(plain + b"\0")), "TrailingBytes")
    count = 1 + 32 + 2 + len(ALICE.device_list().signed.encode()) + 1
    many = put(plain, count, b"\xff\xff\xff\xff")
    yield invalid("more contacts than there are bytes", "decode", _export(_file(many)), "BeyondLimit")
    backwards = _payload(contacts=tuple(reversed(_payload().contacts)))
    yield invalid("contacts that do not ascend", "decode", _export(_file(backwards)), "NonCanonical")
    twice = _payload(sections=((1, b""), (1, b"")))
    yield invalid("a section twice", "decode", _export(_file(twice)), "NonCanonical")
    mallorys = replace(_contact(BOB), account_key=CAROL.account.account_key_pair.public)
    yield invalid(
        "a contact's list under another key than the pinned one",
        "signature",
        _export(_file(_payload(contacts=(mallorys,)))),
        "WrongSigner",
    )
    itself = _payload(contacts=(_contact(ALICE),))
    yield invalid("the account itself among its contacts", "signature", _export(_file(itself)), "WrongIdentity")
    another = _payload(device_list=BOB.device_list().signed)
    yield invalid("another user's device list", "signature", _export(_file(another)), "WrongSigner")
    unsigned = _payload(device_list=replace(ALICE.device_list().signed, signature=bytes(64)))
    yield invalid("a device list with a wrong signature", "signature", _export(_file(unsigned)), "ModifiedSignature")
    header = ExportFile(UserId("alice"), BOB.account.account_key_pair.public, NONCE, b"").encode()[:_HEADER]
    key = kdf.hkdf_sha512(b"", SECRET, Purpose.EXPORT.value, 32)
    foreign = header + NONCE + aead.seal(key, NONCE, plain, header)
    yield invalid("a header that names another account key", "signature", _export(foreign), "WrongIdentity")
