"""Cases of codec.json."""

from collections.abc import Iterator

from e2ee.cli.vectors.cases.mutations import invalid, valid
from e2ee.cli.vectors.cases.people import person
from e2ee.cli.vectors.drawn import drawn
from e2ee.cli.vectors.model import Case, CaseGroup
from e2ee.cli.vectors.operations import codec

_EVERY_CHARACTER = "".join(map(chr, range(0x21, 0x7F)))
_ID = "00112233445566778899aabbccddeeff"


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(codec.BASE64URL_ENCODE, "bytes of all lengths modulo 3", tuple(_base64url_encode()))
    yield CaseGroup(codec.BASE64URL_DECODE, "the one spelling, and others", tuple(_base64url_decode()))
    yield CaseGroup(codec.ADDRESS_ENCODE, "user ids of all lengths and characters", tuple(_address_encode()))
    yield CaseGroup(codec.ADDRESS_DECODE, "binary addresses", tuple(_address_decode()))
    yield CaseGroup(codec.ADDRESS_PARSE, "addresses as text", tuple(_address_parse()))
    yield CaseGroup(codec.CONVERSATION_ID, "conversation ids", tuple(_conversation_ids()))


def _base64url_encode() -> Iterator[Case]:
    for length in (1, 2, 3, 31, 32):
        yield valid(f"{length} bytes", {"bytes": drawn(f"base64url {length}", length).hex()})
    yield valid("the two characters that differ from plain base64", {"bytes": "fbff"}, "Boundary")


def _base64url_decode() -> Iterator[Case]:
    for comment, text in (("no bytes", ""), ("one zero byte", "AA"), ("two bytes", "-_8"), ("three bytes", "AAEC")):
        yield valid(comment, {"text": text})
    for comment, text in (
        ("padding", "AA=="),
        ("spare bits are not zero, one byte", "AB"),
        ("spare bits are not zero, two bytes", "-_9"),
    ):
        yield invalid(comment, "decode", {"text": text}, "NonCanonical")
    for comment, text in (
        ("plus and slash", "+/8"),
        ("a space", "AA "),
        ("a line break at the end", "AAEC\n"),
        ("a character above 0x7F", "A\u00c4EC"),
    ):
        yield invalid(comment, "decode", {"text": text}, "InvalidText")
    yield invalid("one character more than whole bytes", "decode", {"text": "AAECA"}, "Truncated")


def _address_encode() -> Iterator[Case]:
    yield valid("a plain user id", {"user_id": "alice", "device_id": str(person("alice").address.device_id)})
    for comment, user_id in (
        ("one character", "~"),
        ("128 characters", "u" * 128),
        ("every character that is allowed", _EVERY_CHARACTER),
        ("a slash in the user id", "team/alice"),
    ):
        yield valid(comment, {"user_id": user_id, "device_id": _ID}, "Boundary")
    for comment, user_id in (("empty", ""), ("129 characters", "u" * 129)):
        yield invalid(comment, "decode", {"user_id": user_id, "device_id": _ID}, "BeyondLimit")
    for comment, user_id in (
        ("a space", "alice smith"),
        ("a line break at the end", "alice\n"),
        ("a control character", "alice\x1f"),
        ("delete", "alice\x7f"),
        ("a letter beyond ASCII", "\u00e4lice"),
    ):
        yield invalid(comment, "decode", {"user_id": user_id, "device_id": _ID}, "InvalidText")


def _address_decode() -> Iterator[Case]:
    good = person("alice").address.encode()
    yield valid("a plain user id", {"encoded": good.hex()})
    yield valid("128 characters", {"encoded": (b"\x80" + b"u" * 128).hex() + _ID}, "Boundary")
    yield invalid("an empty user id", "decode", {"encoded": "00" + _ID}, "BeyondLimit")
    yield invalid("129 characters", "decode", {"encoded": (b"\x81" + b"u" * 129).hex() + _ID}, "BeyondLimit")
    yield invalid("a space", "decode", {"encoded": (b"\x03a b").hex() + _ID}, "InvalidText")
    yield invalid("a byte above 0x7F", "decode", {"encoded": (b"\x02\xc3\xa4").hex() + _ID}, "InvalidText")
    yield invalid("no bytes", "decode", {"encoded": ""}, "Truncated")
    yield invalid("the last byte is missing", "decode", {"encoded": good[:-1].hex()}, "Truncated")
    yield invalid("one more byte", "decode", {"encoded": good.hex() + "00"}, "TrailingBytes")


def _address_parse() -> Iterator[Case]:
    yield valid("a plain user id", {"text": f"alice/{_ID}"})
    yield valid("split at the last slash", {"text": f"team/alice/{_ID}"}, "Boundary")
    yield invalid("no slash", "decode", {"text": _ID}, "InvalidText")
    yield invalid("no user id", "decode", {"text": f"/{_ID}"}, "InvalidText")
    yield invalid("upper-case hex", "decode", {"text": f"alice/{_ID.upper()}"}, "NonCanonical")
    yield invalid("a device id of 15 bytes", "decode", {"text": f"alice/{_ID[2:]}"}, "Truncated")
    yield invalid("a device id of 17 bytes", "decode", {"text": f"alice/{_ID}00"}, "TrailingBytes")


def _conversation_ids() -> Iterator[Case]:
    for comment, text in (("empty: the default conversation", ""), ("128 characters", "c" * 128)):
        yield valid(comment, {"text": text}, "Boundary")
    yield valid("a name", {"text": "team-7"})
    yield invalid("129 characters", "decode", {"text": "c" * 129}, "BeyondLimit")
    yield invalid("a space", "decode", {"text": "team 7"}, "InvalidText")
