"""Sync bodies: their bytes, bounds, refusals."""

import pytest

from e2ee.errors import MalformedMessageError
from e2ee.limits import MAX_APPLICATION_DATA, MAX_RECEIPT_IDS
from e2ee.wire.content import ContentKind, encode_application
from e2ee.wire.identifiers import MessageId, UserId
from e2ee.wire.sync import ReadMarks, SentCopy, decode_sync

BOB = UserId("bob")
IDS = (MessageId(bytes(range(16))), MessageId(bytes(range(16, 32))))
COPY = SentCopy(BOB, ContentKind.APPLICATION, encode_application("said"))
MARKS = ReadMarks(BOB, IDS)


def test_the_layout_of_a_copy_and_of_read_marks() -> None:
    assert COPY.encode() == b"\x01" + b"\x03bob" + b"\x01" + b"\x01said"
    assert MARKS.encode() == b"\x02" + b"\x03bob" + b"\x00\x02" + bytes(range(32))


def test_a_copy_and_read_marks_come_back() -> None:
    for body in ("said", b"", b"\xff\0", bytes(MAX_APPLICATION_DATA)):
        copy = SentCopy(BOB, ContentKind.APPLICATION, encode_application(body))
        assert decode_sync(copy.encode()) == copy
    for ids in (IDS[:1], IDS, IDS[::-1], IDS[:1] * MAX_RECEIPT_IDS):
        assert decode_sync(ReadMarks(BOB, ids).encode()) == ReadMarks(BOB, ids)


@pytest.mark.parametrize("number", [0, 3, 255])
def test_an_unknown_type_means_nothing_whatever_follows(number: int) -> None:
    for rest in (b"", MARKS.encode()[1:], bytes(100)):
        assert decode_sync(bytes([number]) + rest) is None


@pytest.mark.parametrize("count", [0, MAX_RECEIPT_IDS + 1])
def test_no_read_marks_or_too_many_are_refused_on_both_sides(count: int) -> None:
    assert MAX_RECEIPT_IDS == 256
    with pytest.raises(ValueError, match="256"):
        ReadMarks(BOB, IDS[:1] * count).encode()
    with pytest.raises(MalformedMessageError, match="number of messages"):
        decode_sync(b"\x02\x03bob" + count.to_bytes(2, "big") + bytes(16 * count))


def test_a_body_that_is_cut_or_goes_on_is_refused() -> None:
    marks = MARKS.encode()
    for at in range(len(marks)):
        with pytest.raises(MalformedMessageError, match="truncated"):
            decode_sync(marks[:at])
    with pytest.raises(MalformedMessageError, match="trailing"):
        decode_sync(marks + b"\0")
    head = len(b"\x01\x03bob\x01")
    for at in range(head):
        with pytest.raises(MalformedMessageError, match="truncated"):
            decode_sync(COPY.encode()[:at])


@pytest.mark.parametrize("user_id", [b"", b"b b", b"b\xc3\xb6b", b"b" * 129])
def test_a_user_id_that_is_none_is_refused(user_id: bytes) -> None:
    named = bytes([len(user_id)]) + user_id
    for body in (b"\x01" + named + COPY.encode()[5:], b"\x02" + named + MARKS.encode()[5:]):
        with pytest.raises(MalformedMessageError):
            decode_sync(body)


def test_only_application_data_is_copied() -> None:
    for kind in range(256):
        if kind != ContentKind.APPLICATION:
            with pytest.raises(MalformedMessageError, match="another kind"):
                decode_sync(SentCopy(BOB, kind, COPY.body).encode())


@pytest.mark.parametrize(
    "body", [b"", b"\x02text", b"\x01\xff", b"\x00" + bytes(MAX_APPLICATION_DATA + 1)], ids=range(4)
)
def test_a_copy_of_what_no_recipient_would_read_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        decode_sync(SentCopy(BOB, ContentKind.APPLICATION, body).encode())
