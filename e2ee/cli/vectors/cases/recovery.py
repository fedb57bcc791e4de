"""Cases of recovery.json: alice's account, with bob and carol among her contacts."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from e2ee.cli.vectors.cases.mutations import flip, invalid, put, valid
from e2ee.cli.vectors.cases.people import NOW, Person, person
from e2ee.cli.vectors.drawn import drawn
from e2ee.cli.vectors.model import Case, CaseGroup, JsonObject
from e2ee.cli.vectors.operations import recovery
from e2ee.limits import MAX_TIMESTAMP
from e2ee.primitives import aead, kdf
from e2ee.recovery import ExportFile, Purpose, RecoveryCode, seal_export
from e2ee.transfer import HISTORY_SECTION, ExportedMessage, ExportPayload, HistoryKey, HistorySection
from e2ee.wire.contacts import ContactEntry, DecisionEntry
from e2ee.wire.content import ContentKind, encode_application
from e2ee.wire.identifiers import ConversationId, MessageId, UserId

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
    yield CaseGroup(recovery.HISTORY_SEAL, "exports with a history", tuple(_histories_sealed()))
    yield CaseGroup(recovery.HISTORY_OPEN, "exports with a history that open", tuple(_histories_opened()))
    yield CaseGroup(recovery.HISTORY_OPEN, "exports with a history that are refused", tuple(_histories_refused()))


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


# --- with a history ------------------------------------------------------------------------------------------

_HISTORY_KEY: Final = drawn("recovery: history key", 32)
_FOREVER: Final = MAX_TIMESTAMP


def _message(number: int, **changes: object) -> ExportedMessage:
    ours = number % 2 == 0
    author, body = (ALICE if ours else BOB), encode_application(f"message {number}")
    honest = ExportedMessage(
        MessageId(drawn(f"history: message {number}", 16)),
        author.user_id,
        author.address.device_id,
        BOB.user_id,
        ConversationId(""),
        ContentKind.APPLICATION,
        NOW + number,
        NOW + number,
        NOW + number + 1,
        number % 3,
        (NOW + number) << 16,
        body,
    )
    return replace(honest, **changes)  # type: ignore[arg-type]  # names and types are the cases'


def _with_history(retention: int = _FOREVER, **changes: object) -> ExportPayload:
    section = HistorySection(HistoryKey(_HISTORY_KEY), retention).encode()
    return _payload(sections=((HISTORY_SECTION, section),), **changes)


def _history(*chunks: tuple[ExportedMessage, ...], payload: ExportPayload | None = None) -> JsonObject:
    return {
        "secret": SECRET.hex(),
        "user_id": "alice",
        "nonce": NONCE.hex(),
        "payload": recovery.payload_json(payload or _with_history()),
        "chunks": [[recovery.message_json(each) for each in chunk] for chunk in chunks],
    }


def _histories() -> Iterator[tuple[str, JsonObject, str]]:
    call = _message(3, kind=ContentKind.CALL, body=drawn("history: missed call", 20))
    later = _message(5, kind=200, body=b"", conversation=ConversationId("team-7"))
    note = _message(6, author=ALICE.user_id, peer=ALICE.user_id, state=2)
    yield "two messages in one chunk", _history((_message(0), _message(1))), "Normal"
    yield "three chunks", _history((_message(0),), (_message(1), _message(2)), (_message(4),)), "Normal"
    yield "a missed call, a kind of a later release, a note to oneself", _history((call, later, note)), "UnknownKind"
    yield "no messages", _history(()), "Boundary"
    yield "an empty chunk before another", _history((), (_message(0),)), "Boundary"
    shortest = _history((_message(0),), payload=_with_history(1, contacts=(), decisions=()))
    yield "kept for a millisecond, no contacts", shortest, "Boundary"
    longest = _message(0, position=(1 << 62) - 1, sent_at=MAX_TIMESTAMP, conversation=ConversationId("c" * 128))
    yield "the highest position and time, the longest conversation id", _history((longest,)), "Boundary"


def _histories_sealed() -> Iterator[Case]:
    for comment, given, flag in _histories():
        yield valid(comment, given, flag)


def _pieces(given: JsonObject) -> list[bytes]:
    """Return an export in pieces: the account, then each chunk."""
    export = bytes.fromhex(recovery.HISTORY_SEAL.answer(given)["output"]["export"])
    at = _HEADER + 12
    at += 4 + int.from_bytes(export[at : at + 4], "big")
    pieces = [export[:at]]
    while at < len(export):
        end = at + 4 + int.from_bytes(export[at : at + 4], "big")
        pieces.append(export[at:end])
        at = end
    return pieces


def _with_code(*pieces: bytes) -> JsonObject:
    return {"secret": SECRET.hex(), "export": b"".join(pieces).hex()}


def _histories_opened() -> Iterator[Case]:
    for comment, given, flag in _histories():
        yield valid(comment, _with_code(*_pieces(given)), flag)
    yield valid("an export without a history", _with_code(_file(_payload())))


def _histories_refused() -> Iterator[Case]:
    three = _history((_message(0),), (_message(1), _message(2)), (_message(4),))
    account, first, second, last = _pieces(three)
    for comment, layer, pieces, flag in (
        ("without its last chunk", "authentication", (account, first, second), "Truncated"),
        ("without its first chunk", "authentication", (account, second, last), "ModifiedCiphertext"),
        ("two chunks swapped", "authentication", (account, second, first, last), "ModifiedCiphertext"),
        ("a chunk twice", "authentication", (account, first, first, second, last), "Replay"),
        ("the last chunk twice", "authentication", (account, first, second, last, last), "Replay"),
        ("a tag changed", "authentication", (account, first, second, flip(last, -1)), "ModifiedCiphertext"),
        ("the account's tag changed", "authentication", (flip(account, -1), first, second, last), "ModifiedCiphertext"),
        ("user id changed", "authentication", (flip(account, 3), first, second, last), "ModifiedCiphertext"),
        ("without any chunk", "decode", (account,), "Truncated"),
        ("cut in the account", "decode", (account[:-1],), "Truncated"),
        ("cut in a chunk", "decode", (account, first[:-1]), "Truncated"),
        ("a byte behind the last chunk", "authentication", (account, first, second, last, b"\0"), "TrailingBytes"),
        ("a chunk shorter than a tag", "decode", (account, b"\0\0\0\x0f" + bytes(15)), "Truncated"),
        ("a chunk of 128 KiB and a tag and a byte", "decode", (account, b"\0\2\0\x11"), "BeyondLimit"),
        ("version 3", "decode", (b"\x03" + account[1:], first, second, last), "UnknownVersion"),
        ("version 1 with chunks", "authentication", (b"\x01" + account[1:], first, second, last), "UnknownVersion"),
    ):
        yield invalid(comment, layer, _with_code(*pieces), flag)  # type: ignore[arg-type]  # layers are literals
    wrong = {**_with_code(account, first, second, last), "secret": drawn("recovery: another code", 20).hex()}
    yield invalid("another code", "authentication", wrong, "WrongKey")
    other = _with_history()
    key = drawn("recovery: another history key", 32)
    foreign = replace(other, sections=((HISTORY_SECTION, HistorySection(HistoryKey(key), _FOREVER).encode()),))
    _, *chunks = _pieces(_history((_message(0),), payload=foreign))
    yield invalid("a chunk of another export", "authentication", _with_code(account, *chunks), "WrongKey")
    for comment, message, flag in (
        ("a message of a stranger", _message(1, author=CAROL.user_id), "WrongIdentity"),
        ("a receipt in a history", _message(1, kind=ContentKind.RECEIPT), "WrongKind"),
        ("a state of 3", _message(1, state=3), "BeyondLimit"),
        ("a position of 2^62", _message(1, position=1 << 62), "BeyondLimit"),
        ("text that is no UTF-8", _message(1, body=b"\x01\x80"), "MalformedContent"),
    ):
        yield invalid(comment, "decode", _with_code(*_pieces(_history((_message(0), message)))), flag)
    for comment, sections, flag in (
        ("a section of 39 bytes", ((1, drawn("recovery: short section", 39)),), "Truncated"),
        ("a section of 41 bytes", ((1, drawn("recovery: long section", 41)),), "TrailingBytes"),
        ("a history that is kept for no time", ((1, _HISTORY_KEY + bytes(8)),), "BeyondLimit"),
        ("without the section of the history", (), "Truncated"),
    ):
        sealed = _sealed_account(_payload(sections=sections))
        yield invalid(comment, "decode", _with_code(sealed, first, second, last), flag)
    mallorys = replace(_contact(BOB), account_key=CAROL.account.account_key_pair.public)
    sealed = _sealed_account(_with_history(contacts=(mallorys,)))
    yield invalid(
        "a contact's list under another key than the pinned one",
        "signature",
        _with_code(sealed, first, second, last),
        "WrongSigner",
    )


def _sealed_account(payload: ExportPayload) -> bytes:
    header = b"\x02" + _file(_payload())[1:_HEADER]
    key = kdf.hkdf_sha512(b"", SECRET, Purpose.EXPORT.value, 32)
    sealed = aead.seal(key, NONCE, payload.encode(), header)
    return header + NONCE + len(sealed).to_bytes(4, "big") + sealed
