"""Cases of message.json. Keys and ciphertexts are any bytes: nothing is decrypted here."""

from collections.abc import Iterator
from typing import Final

from e2ee.cli.vectors.cases.mutations import LOW_ORDER, invalid, non_canonical_keys, put, valid
from e2ee.cli.vectors.cases.people import NOW, person
from e2ee.cli.vectors.drawn import drawn
from e2ee.cli.vectors.model import Case, CaseGroup, JsonObject
from e2ee.cli.vectors.operations import message
from e2ee.limits import MAX_TIMESTAMP
from e2ee.primitives import dh

_KEY: Final = dh.public_key(drawn("message: ratchet key", 32))
_U32: Final = (1 << 32) - 1
_HANDSHAKE: Final = 1719
"""Length of the handshake header."""


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(message.RATCHET_ENCODE, "fields to bytes", tuple(_same(_ratchet_messages())))
    decoded = (valid(c, _encoded(message.RATCHET_ENCODE.answer(g)["output"]), *f) for c, g, f in _ratchet_messages())
    yield CaseGroup(message.RATCHET_DECODE, "bytes to fields", (*decoded, *_ratchet_refused()))
    yield CaseGroup(message.PREKEY_ENCODE, "fields to bytes", tuple(_same(_prekey_messages())))
    first = (valid(c, _encoded(message.PREKEY_ENCODE.answer(g)["output"]), *f) for c, g, f in _prekey_messages())
    yield CaseGroup(message.PREKEY_DECODE, "bytes to fields", (*first, *_prekey_refused()))


_Example = tuple[str, JsonObject, tuple[str, ...]]


def _same(examples: Iterator[_Example]) -> Iterator[Case]:
    return (valid(comment, given, *flags) for comment, given, flags in examples)


def _encoded(output: JsonObject) -> JsonObject:
    return {"encoded": output["encoded"]}


def _fields(**changes: object) -> JsonObject:
    return {
        "ratchet_key": _KEY.hex(),
        "previous_chain_length": 3,
        "index": 7,
        "pq_epoch": 0,
        "pq_index": 12,
        "pq_payload_type": 0,
        "pq_payload": "",
        "commitment": drawn("message: commitment", 32).hex(),
        "nonce": drawn("message: nonce", 12).hex(),
        "ciphertext": drawn("message: ciphertext", 272).hex(),
        **changes,
    }


def _ratchet_messages() -> Iterator[_Example]:
    yield "no payload", _fields(), ("Normal",)
    yield "all indices zero", _fields(previous_chain_length=0, index=0, pq_index=0), ("Boundary",)
    highest = _fields(previous_chain_length=_U32, index=_U32 - 1, pq_epoch=_U32, pq_index=_U32 - 1)
    yield "the highest numbers", highest, ("Boundary",)
    yield "a longer ciphertext", _fields(ciphertext=drawn("message: long", 320).hex()), ("Normal",)
    yield "a key of low order decodes", _fields(ratchet_key=LOW_ORDER[1].hex()), ("LowOrderKey",)
    for kind, length in ((1, 1216), (2, 1120), (3, 0)):
        payload = drawn(f"message: payload {kind}", length).hex()
        yield f"payload of type {kind}", _fields(pq_payload_type=kind, pq_payload=payload), ("Normal",)


def _ratchet_bytes(**changes: object) -> bytes:
    return bytes.fromhex(message.RATCHET_ENCODE.answer(_fields(**changes))["output"]["encoded"])


def _ratchet_refused() -> Iterator[Case]:
    good = _ratchet_bytes()

    def refused(comment: str, encoded: bytes, flag: str) -> Case:
        return invalid(comment, "decode", {"encoded": encoded.hex()}, flag)

    yield refused("version 0", put(good, 0, b"\0"), "UnknownVersion")
    yield refused("version 2", put(good, 0, b"\2"), "UnknownVersion")
    yield refused("type 1 is a PreKeyMessage", put(good, 1, b"\1"), "UnknownVersion")
    yield refused("type 3", put(good, 1, b"\3"), "UnknownVersion")
    for comment, key in non_canonical_keys(_KEY):
        yield refused(comment, put(good, 2, key), "NonCanonicalKey")
    yield refused("index 2^32 - 1 leaves none for the next message", put(good, 38, b"\xff" * 4), "BeyondLimit")
    yield refused("post-quantum index 2^32 - 1", put(good, 46, b"\xff" * 4), "BeyondLimit")
    yield refused("payload type 4", put(good, 50, b"\4"), "UnknownVersion")
    yield refused("type 0 with a payload", good[:51] + b"\0\1x" + good[53:], "PayloadLength")
    yield refused("type 3 with a payload", good[:50] + b"\3\0\1x" + good[53:], "PayloadLength")
    for kind, length in ((1, 1215), (1, 1217), (1, 1120), (2, 1119), (2, 1121), (2, 1216), (1, 0), (2, 0)):
        payload = bytes((kind,)) + length.to_bytes(2, "big") + drawn("message: payload", length)
        yield refused(f"type {kind} with {length} bytes", good[:50] + payload + good[53:], "PayloadLength")
    for comment, length in (
        ("no bytes", 0),
        ("cut in the header", 52),
        ("the header alone", 53),
        ("cut in the nonce", 96),
        ("no ciphertext", 97),
        ("a ciphertext of 271 bytes", 368),
    ):
        yield refused(comment, good[:length], "Truncated")
    yield refused(
        "a payload that is cut", _ratchet_bytes(pq_payload_type=1, pq_payload="00" * 1216)[:1000], "Truncated"
    )


def _first_fields(one_time: int | None, created: int = NOW, **changes: object) -> JsonObject:
    party = person("alice").account.party
    named = {} if one_time is None else {"one_time_prekey_id": one_time}
    handshake = {
        "account_key": str(party.account_key),
        "device_signing_key": str(party.device_signing_key),
        "identity_key": str(party.identity_key),
        "created": created,
        "ephemeral_key": dh.public_key(drawn("message: ephemeral key", 32)).hex(),
        "signed_prekey_id": 0x01020304,
        **named,
        "kem_prekey_id": _U32,
        "kem_ciphertext": drawn("message: kem ciphertext", 1568).hex(),
    }
    return {"handshake": handshake, "message": _fields(**changes)}


def _prekey_messages() -> Iterator[_Example]:
    yield "with a one-time prekey", _first_fields(0xFFFEFDFC), ("Normal",)
    yield "one-time prekey id 0", _first_fields(0), ("Boundary",)
    yield "without a one-time prekey", _first_fields(None), ("NoOneTimePreKey",)
    yield "created is 2^63 - 1", _first_fields(1, MAX_TIMESTAMP), ("Boundary",)


def _first_bytes(one_time: int | None = 1) -> bytes:
    return bytes.fromhex(message.PREKEY_ENCODE.answer(_first_fields(one_time))["output"]["encoded"])


def _prekey_refused() -> Iterator[Case]:
    good = _first_bytes()

    def refused(comment: str, encoded: bytes, flag: str) -> Case:
        return invalid(comment, "decode", {"encoded": encoded.hex()}, flag)

    yield refused("version 0", put(good, 0, b"\0"), "UnknownVersion")
    yield refused("type 2 in front of a handshake header", put(good, 1, b"\2"), "UnknownVersion")
    for comment, key in non_canonical_keys(good[66:98]):
        yield refused(f"identity key: {comment}", put(good, 66, key), "NonCanonicalKey")
    for comment, key in non_canonical_keys(good[106:138]):
        yield refused(f"ephemeral key: {comment}", put(good, 106, key), "NonCanonicalKey")
    yield refused("created is 2^63", put(good, 98, b"\x80" + bytes(7)), "BeyondLimit")
    yield refused("the flag of the one-time prekey is 2", put(good, 142, b"\2"), "NonCanonical")
    absent = put(_first_bytes(None), 146, b"\1")
    yield refused("the id of an absent one-time prekey is not zero", absent, "NonCanonical")
    yield refused("the inner message is a PreKeyMessage", put(good, _HANDSHAKE + 5, b"\1"), "UnknownVersion")
    yield refused("the inner message has version 2", put(good, _HANDSHAKE + 4, b"\2"), "UnknownVersion")
    yield refused("the inner message is longer than 98,304 bytes", put(good, _HANDSHAKE, b"\0\1\x80\1"), "BeyondLimit")
    yield refused("the inner length is one too large", put(good, _HANDSHAKE + 3, b"\x72"), "Truncated")
    yield refused("the inner length is one too small", put(good, _HANDSHAKE + 3, b"\x70"), "Truncated")
    yield refused("one more byte", good + b"\0", "TrailingBytes")
    for comment, length in (
        ("the version alone", 1),
        ("cut in the ephemeral key", 130),
        ("cut in the KEM ciphertext", _HANDSHAKE - 1),
        ("the handshake header alone", _HANDSHAKE),
        ("the last byte is missing", len(good) - 1),
    ):
        yield refused(comment, good[:length], "Truncated")
