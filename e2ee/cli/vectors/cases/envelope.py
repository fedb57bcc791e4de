"""Cases of envelope.json."""

from collections.abc import Iterator
from typing import Final

from e2ee.cli.vectors.cases.mutations import invalid, put, valid
from e2ee.cli.vectors.cases.people import person
from e2ee.cli.vectors.drawn import drawn
from e2ee.cli.vectors.model import Case, CaseGroup, JsonObject
from e2ee.cli.vectors.operations import envelope
from e2ee.cli.vectors.operations.parts import address_json
from e2ee.limits import MAX_TTL_SECONDS
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import DeviceAddress, DeviceId, EnvelopeId, UserId

_LONGEST: Final = DeviceAddress(UserId("u" * 128), DeviceId(drawn("envelope: long", 16)))


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(envelope.ENCODE, "fields to bytes", tuple(_encode()))
    yield CaseGroup(envelope.DECODE, "bytes to fields", (*_decode_valid(), *_decode_invalid()))


def _envelopes() -> Iterator[tuple[str, Envelope, str]]:
    alice, bob = person("alice").address, person("bob").address
    envelope_id, body = EnvelopeId(drawn("envelope id", 16)), drawn("envelope body", 369)
    yield "chat", Envelope(envelope_id, alice, bob, Lane.CHAT, MAX_TTL_SECONDS, body), "Normal"
    yield "control, one second", Envelope(envelope_id, bob, alice, Lane.CONTROL, 1, body), "Boundary"
    yield "receipt", Envelope(EnvelopeId(bytes(16)), alice, bob, Lane.RECEIPT, 86_400, body), "Normal"
    yield "bulk, longest user ids", Envelope(envelope_id, _LONGEST, _LONGEST, Lane.BULK, 3_600, body), "Boundary"
    yield (
        "no body: its form is not the envelope's business",
        Envelope(envelope_id, alice, bob, Lane.CHAT, 60, b""),
        ("Boundary"),
    )


def _encode() -> Iterator[Case]:
    for comment, each, flag in _envelopes():
        yield valid(comment, _fields(each), flag)


def _decode_valid() -> Iterator[Case]:
    for comment, each, flag in _envelopes():
        yield valid(comment, {"encoded": each.encode().hex()}, flag)


def _decode_invalid() -> Iterator[Case]:
    (_, example, _), *_ = _envelopes()
    good = example.encode()
    sender = 17
    recipient = sender + len(example.sender.encode())
    lane = recipient + len(example.recipient.encode())

    def refused(comment: str, encoded: bytes, flag: str) -> Case:
        return invalid(comment, "decode", {"encoded": encoded.hex()}, flag)

    yield refused("version 0", put(good, 0, b"\0"), "UnknownVersion")
    yield refused("version 2", put(good, 0, b"\2"), "UnknownVersion")
    yield refused("the sender has no user id", good[:sender] + b"\0" + good[sender + 6 :], "BeyondLimit")
    yield refused("a space in the sender's user id", put(good, sender + 1, b" "), "InvalidText")
    yield refused("a byte above 0x7F in the recipient's user id", put(good, recipient + 1, b"\xc3"), "InvalidText")
    yield refused("a sender's user id of 129 characters", _with_long_sender(good, sender), "BeyondLimit")
    yield refused("lane 4", put(good, lane, b"\4"), "BeyondLimit")
    yield refused("ttl 0", put(good, lane + 1, bytes(4)), "BeyondLimit")
    too_long = (MAX_TTL_SECONDS + 1).to_bytes(4, "big")
    yield refused("ttl of 28 days and a second", put(good, lane + 1, too_long), "BeyondLimit")
    yield refused("the body's length is one too large", put(good, lane + 8, b"\x72"), "Truncated")
    yield refused("the body's length is one too small", put(good, lane + 8, b"\x70"), "TrailingBytes")
    yield refused("the body's length is 2^32 - 1", put(good, lane + 5, b"\xff" * 4), "BeyondLimit")
    yield refused("one more byte", good + b"\0", "TrailingBytes")
    for comment, length in (
        ("no bytes", 0),
        ("the version alone", 1),
        ("cut in the envelope id", 16),
        ("cut in the sender's user id", sender + 3),
        ("cut in the recipient's device id", lane - 1),
        ("cut in the ttl", lane + 4),
        ("cut before the body's length", lane + 5),
        ("the last byte is missing", len(good) - 1),
    ):
        yield refused(comment, good[:length], "Truncated")


def _with_long_sender(good: bytes, sender: int) -> bytes:
    return good[:sender] + b"\x81" + b"u" * 129 + good[sender + 6 :]


def _fields(each: Envelope) -> JsonObject:
    return {
        "envelope_id": str(each.envelope_id),
        "sender": address_json(each.sender),
        "recipient": address_json(each.recipient),
        "lane": int(each.lane),
        "ttl": each.ttl,
        "body": each.body.hex(),
    }
