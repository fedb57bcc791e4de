"""Cases of content.json."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from e2ee.cli.vectors.cases.mutations import flip, invalid, put, valid
from e2ee.cli.vectors.cases.people import NOW, person
from e2ee.cli.vectors.drawn import drawn
from e2ee.cli.vectors.model import Case, CaseGroup, JsonObject
from e2ee.cli.vectors.operations import content
from e2ee.cli.vectors.operations.parts import position_json
from e2ee.limits import MAX_LINK_BODY, MAX_TIMESTAMP
from e2ee.wire.contacts import ContactEntry, DecisionEntry, LinkedContacts
from e2ee.wire.identifiers import UserId

_LIST: Final = person("alice").device_list().signed.encode()


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(content.ENCODE, "fields to bytes", tuple(valid(c, g, f) for c, g, f in _contents()))
    encoded = (valid(comment, {"encoded": _encode(given).hex()}, flag) for comment, given, flag in _contents())
    yield CaseGroup(content.DECODE, "bytes to fields", (*encoded, *_refused()))
    yield CaseGroup(content.APPLICATION, "bodies of application data", tuple(_application()))
    yield CaseGroup(content.RECEIPT, "bodies of receipts", tuple(_receipts()))
    yield CaseGroup(content.RETRY_REQUEST, "bodies of retry requests", tuple(_retry_requests()))
    yield CaseGroup(content.DEVICE_LISTS, "bodies of device list updates", tuple(_device_lists()))
    yield CaseGroup(content.CALL_SIGNAL, "bodies of call signals", tuple(_call_signals()))
    yield CaseGroup(content.SYNC, "bodies of syncs", tuple(_syncs()))
    yield CaseGroup(content.LINKED, "bodies of link contents", tuple(_linked()))


def _fields(**changes: object) -> JsonObject:
    return {
        "message_id": drawn("content: message id", 16).hex(),
        "kind": 1,
        "conversation_id": "",
        "sent_at": NOW,
        "sender_list": position_json(person("alice").device_list().position),
        "recipient_list": position_json(person("bob").device_list().position),
        "body": (b"\1hello").hex(),
        **changes,
    }


def _encode(given: JsonObject) -> bytes:
    return bytes.fromhex(content.ENCODE.answer(given)["output"]["encoded"])


def _contents() -> Iterator[tuple[str, JsonObject, str]]:
    yield "text", _fields(), "Normal"
    yield "with the sender's device list", _fields(device_list=_LIST.hex()), "Normal"
    yield "in a conversation", _fields(conversation_id="team-7", body="00" + drawn("content: body", 20).hex()), "Normal"
    longest = _fields(conversation_id="c" * 128, sent_at=MAX_TIMESTAMP)
    yield "the longest conversation id, the highest time", longest, "Boundary"
    yield "a receipt", _fields(kind=2, body="020001" + drawn("content: message id 2", 16).hex()), "Normal"
    yield "no body", _fields(kind=8, body=""), "Boundary"
    yield "kind 0", _fields(kind=0), "UnknownKind"
    yield "kind 255", _fields(kind=255), "UnknownKind"


def _refused() -> Iterator[Case]:
    plain, first = _encode(_fields()), _encode(_fields(device_list=_LIST.hex()))
    # message id 16, kind 1, conversation id's length 1, sent at 8, two positions of 40: then the flag
    flag = 106

    def refused(comment: str, encoded: bytes, *flags: str) -> Case:
        return invalid(comment, "decode", {"encoded": encoded.hex()}, *flags)

    yield refused("a conversation id of 129 characters", plain[:17] + b"\x81" + b"c" * 129 + plain[18:], "BeyondLimit")
    yield refused("a space in the conversation id", plain[:17] + b"\1 " + plain[18:], "InvalidText")
    yield refused("a byte above 0x7F in the conversation id", plain[:17] + b"\1\xe4" + plain[18:], "InvalidText")
    yield refused("sent at 2^63", put(plain, 18, b"\x80"), "BeyondLimit")
    yield refused("seq of the sender's list 2^63", put(plain, 26, b"\x80"), "BeyondLimit")
    yield refused("seq of the recipient's list 2^63", put(plain, 66, b"\x80"), "BeyondLimit")
    yield refused("the flag of the device list is 2", put(first, flag, b"\2"), "NonCanonical")
    yield refused("the flag says that there is no list, and one follows", put(first, flag, b"\0"), "BeyondLimit")
    yield refused("the device list is one byte longer", _longer_list(first, flag), "TrailingBytes")
    shorter = (len(_LIST) - 1).to_bytes(4, "big")
    yield refused("the device list's length is one too small", put(first, flag + 1, shorter), "Truncated")
    key = first.index(person("alice").listed.identity_key.raw)
    yield refused("an identity key with bit 255 set", flip(first, key + 31, 0x80), "NonCanonicalKey")
    yield refused("a body longer than 66,560 bytes", put(plain, flag + 1, b"\0\1\4\1"), "BeyondLimit")
    yield refused("one more byte", plain + b"\0", "TrailingBytes")
    for comment, length in (
        ("no bytes", 0),
        ("cut in the message id", 15),
        ("cut in the second list's hash", flag - 1),
        ("cut before the body's length", flag + 1),
        ("the last byte is missing", len(plain) - 1),
    ):
        yield refused(comment, plain[:length], "Truncated")


def _longer_list(first: bytes, flag: int) -> bytes:
    end = flag + 5 + len(_LIST)
    return first[: flag + 1] + (len(_LIST) + 1).to_bytes(4, "big") + first[flag + 5 : end] + b"\0" + first[end:]


def _application() -> Iterator[Case]:
    for comment, body, flag in (
        ("text", b"\1hello", "Normal"),
        ("no text", b"\1", "Boundary"),
        ("text beyond ASCII", b"\1" + "gr\u00fc\u00df dich \U0001f44b".encode(), "Normal"),
        ("bytes", b"\0" + drawn("application", 40), "Normal"),
        ("no bytes", b"\0", "Boundary"),
        ("bytes that are no UTF-8", b"\0\xff\xfe", "Normal"),
    ):
        yield valid(comment, {"body": body.hex()}, flag)
    for comment, body in (
        ("no body", b""),
        ("format 2", b"\2hello"),
        ("text with a lone continuation byte", b"\1\x80"),
        ("text with an overlong encoding", b"\1\xc0\xaf"),
        ("text with a surrogate", b"\1\xed\xa0\x80"),
        ("text that is cut within a character", b"\1gr\xc3"),
    ):
        yield invalid(comment, "decode", {"body": body.hex()}, "MalformedContent")


def _receipts() -> Iterator[Case]:
    one, two = drawn("receipt: 1", 16), drawn("receipt: 2", 16)
    yield valid("delivered, one message", {"body": (b"\1\0\1" + one).hex()})
    yield valid("read, two messages", {"body": (b"\2\0\2" + one + two).hex()})
    most = b"\2\1\0" + drawn("receipt: most", 256 * 16)
    yield valid("256 messages", {"body": most.hex()}, "Boundary")
    for comment, body, flag in (
        ("type 0", b"\0\0\1" + one, "MalformedContent"),
        ("type 3", b"\3\0\1" + one, "MalformedContent"),
        ("no messages", b"\1\0\0", "BeyondLimit"),
        ("257 messages", b"\1\1\1" + drawn("receipt: too many", 257 * 16), "BeyondLimit"),
        ("no bytes", b"", "Truncated"),
        ("cut in the second id", b"\1\0\2" + one + two[:-1], "Truncated"),
        ("one id too many", b"\1\0\1" + one + two, "TrailingBytes"),
    ):
        yield invalid(comment, "decode", {"body": body.hex()}, flag)


def _retry_requests() -> Iterator[Case]:
    one, two = drawn("retry: 1", 16), drawn("retry: 2", 16)
    yield valid("one envelope", {"body": (b"\0\1" + one).hex()})
    yield valid("two envelopes", {"body": (b"\0\2" + two + one).hex()})
    for comment, body, flag in (
        ("no envelopes", bytes(2), "BeyondLimit"),
        ("257 envelopes", b"\1\1" + drawn("retry: too many", 257 * 16), "BeyondLimit"),
        ("cut in the id", b"\0\1" + one[:-1], "Truncated"),
        ("one id too many", b"\0\1" + one + two, "TrailingBytes"),
    ):
        yield invalid(comment, "decode", {"body": body.hex()}, flag)


def _device_lists() -> Iterator[Case]:
    item = len(_LIST).to_bytes(4, "big") + _LIST
    yield valid("one list", {"body": (b"\1" + item).hex()})
    yield valid("16 lists", {"body": (b"\x10" + item * 16).hex()}, "Boundary")
    for comment, body, flag in (
        ("no lists", b"\0", "BeyondLimit"),
        ("17 lists", b"\x11" + item * 17, "BeyondLimit"),
        ("a list is missing", b"\2" + item, "Truncated"),
        ("one list too many", b"\1" + item * 2, "TrailingBytes"),
    ):
        yield invalid(comment, "decode", {"body": body.hex()}, flag)


def _call_signals() -> Iterator[Case]:
    call_id, device_id, sdp = drawn("call: id", 16), drawn("call: device", 16), drawn("call: data", 100)
    most = drawn("call: most", 3_840)
    for comment, body, flag in (
        ("ring, with data", call_id + b"\1" + sdp, "Normal"),
        ("accept, with data", call_id + b"\2" + sdp[:60], "Normal"),
        ("decline, without data", call_id + b"\3", "Normal"),
        ("hang up", call_id + b"\4", "Normal"),
        ("whose answer counts", call_id + b"\5" + device_id, "Normal"),
        ("whose answer counts, and data", call_id + b"\5" + device_id + sdp[:1], "Normal"),
        ("missed", call_id + b"\6", "Normal"),
        ("ring, with the most data", call_id + b"\1" + most, "Boundary"),
        ("whose answer counts, with the most data", call_id + b"\5" + device_id + most, "Boundary"),
    ):
        yield valid(comment, {"body": body.hex()}, flag)
    for comment, body, flag in (
        ("action 0", call_id + b"\0", "MalformedContent"),
        ("action 7", call_id + b"\7" + sdp, "MalformedContent"),
        ("no bytes", b"", "Truncated"),
        ("no action", call_id, "Truncated"),
        ("cut in the device whose answer counts", call_id + b"\5" + device_id[:-1], "Truncated"),
        ("one byte too many of data", call_id + b"\1" + most + b"\0", "BeyondLimit"),
        ("one byte too many of data behind a device", call_id + b"\5" + device_id + most + b"\0", "BeyondLimit"),
    ):
        yield invalid(comment, "decode", {"body": body.hex()}, flag)


def _syncs() -> Iterator[Case]:
    one, two = drawn("sync: 1", 16), drawn("sync: 2", 16)
    copy, marks = b"\1\3bob\1", b"\2\3bob"
    most = copy + b"\0" + drawn("sync: longest", 65_536)
    for comment, body, flag in (
        ("the copy of a text", copy + b"\1hello", "Normal"),
        ("the copy of bytes", copy + b"\0" + one, "Normal"),
        ("the copy of the longest message to the longest name", b"\1\x80" + b"b" * 128 + most[5:], "Boundary"),
        ("one message was read", marks + b"\0\1" + one, "Normal"),
        ("256 messages were read", marks + b"\1\0" + drawn("sync: most", 256 * 16), "Boundary"),
        ("a type that means nothing", b"\3" + one, "UnknownKind"),
        ("type 0", b"\0", "UnknownKind"),
    ):
        yield valid(comment, {"body": body.hex()}, flag)
    for comment, body, flag in (
        ("no type", b"", "Truncated"),
        ("the copy of a receipt", b"\1\3bob\2\1\0\1" + one, "MalformedContent"),
        ("a copy without a body", copy, "Truncated"),
        ("the copy of text that is no UTF-8", copy + b"\1\x80", "MalformedContent"),
        ("a copy with one byte too many", most + b"\0", "BeyondLimit"),
        ("a copy for nobody", b"\1\0\1\1hello", "MalformedContent"),
        ("no messages", marks + b"\0\0", "BeyondLimit"),
        ("257 messages", marks + b"\1\1" + drawn("sync: too many", 257 * 16), "BeyondLimit"),
        ("cut in the second id", marks + b"\0\2" + one + two[:-1], "Truncated"),
        ("one id too many", marks + b"\0\1" + one + two, "TrailingBytes"),
        ("a name that is no user id", b"\2\3b b\0\1" + one, "MalformedContent"),
    ):
        yield invalid(comment, "decode", {"body": body.hex()}, flag)


def _entry(name: str, **changes: object) -> ContactEntry:
    who = person(name)
    key = who.account.account_key_pair.public
    entry = ContactEntry(who.user_id, key, False, False, who.device_list().signed)
    return replace(entry, **changes)  # type: ignore[arg-type]  # names and types are the cases'


def _decided(name: str, decision: int, at: int = NOW) -> DecisionEntry:
    return DecisionEntry(UserId(name), decision, person(name).account.account_key_pair.public, at)


def _linked() -> Iterator[Case]:
    bob, carol = _entry("bob", verified=True), _entry("carol", forked=True)
    both = (_decided("bob", 1), _decided("carol", 1), _decided("bob", 5, NOW + 1))
    whole = LinkedContacts(1, (bob, carol), both).encode()
    later = LinkedContacts(9, (bob,), (_decided("bob", 99, MAX_TIMESTAMP),)).encode()
    for comment, body, flag in (
        ("two contacts and what was decided about them", whole, "Normal"),
        ("a contact without decisions", LinkedContacts(0, (bob,), ()).encode(), "Normal"),
        ("nobody", LinkedContacts(0, (), ()).encode(), "Boundary"),
        ("a policy and a decision of a later release", later, "UnknownKind"),
        ("a type that means nothing", b"\2" + drawn("linked: unknown", 16), "UnknownKind"),
    ):
        yield valid(comment, _to_alice(body), flag)
    flags = 1 + 1 + 2 + 1 + 3 + 32
    for comment, body, flag in (
        ("no type", b"", "Truncated"),
        ("cut in the last decision", whole[:-1], "Truncated"),
        ("a byte more", whole + b"\0", "TrailingBytes"),
        ("61,441 bytes", b"\2" + bytes(MAX_LINK_BODY), "BeyondLimit"),
        ("65,535 contacts announced", b"\1\0\xff\xff\0\0", "BeyondLimit"),
        ("65,535 decisions announced", b"\1\0\0\0\xff\xff", "BeyondLimit"),
        ("a contact twice", LinkedContacts(0, (bob, bob), ()).encode(), "NonCanonical"),
        ("contacts that do not ascend", LinkedContacts(0, (carol, bob), ()).encode(), "NonCanonical"),
        ("verified is 2", put(whole, flags, b"\2"), "NonCanonical"),
        (
            "a decision about nobody told of",
            LinkedContacts(0, (bob,), (_decided("carol", 5),)).encode(),
            "WrongIdentity",
        ),
        ("a user id with a space", put(whole, 5, b"b b"), "InvalidText"),
    ):
        yield invalid(comment, "decode", _to_alice(body), flag)
    mallorys = _entry("bob", account_key=person("carol").account.account_key_pair.public)
    unsigned = _entry("bob", device_list=replace(bob.device_list, signature=bytes(64)))
    for comment, entry, flag in (
        ("a list under another key than the pinned one", mallorys, "WrongSigner"),
        ("another user's list", _entry("bob", device_list=carol.device_list), "WrongSigner"),
        ("a list with a wrong signature", unsigned, "ModifiedSignature"),
        ("the reader's own user", _entry("alice"), "WrongIdentity"),
    ):
        yield invalid(comment, "signature", _to_alice(LinkedContacts(0, (entry,), ()).encode()), flag)


def _to_alice(body: bytes) -> JsonObject:
    return {"user_id": "alice", "body": body.hex()}
