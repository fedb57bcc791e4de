"""Content and its bodies: bounds, formats, refusals."""

from dataclasses import replace

import pytest

from e2ee.errors import E2EEError, MalformedMessageError
from e2ee.limits import MAX_APPLICATION_DATA, MAX_ENVELOPE, MAX_RECEIPT_IDS, MAX_RETRY_IDS
from e2ee.wire.content import (
    Content,
    ContentKind,
    Receipt,
    ReceiptType,
    decode_application,
    decode_device_lists,
    decode_retry_request,
    encode_application,
    encode_device_lists,
    encode_retry_request,
)
from e2ee.wire.device_list import DeviceListHash, ListPosition
from e2ee.wire.identifiers import ConversationId, EnvelopeId, MessageId
from e2ee.wire.padding import padded_length
from tests.wire_objects import NOW, make_device, make_list, sign_list

ALICE = make_device("alice")
SIGNED_LIST = sign_list(make_list([ALICE]), ALICE.account)
CONTENT = Content(
    message_id=MessageId(bytes(range(16))),
    kind=ContentKind.APPLICATION,
    conversation_id=ConversationId("work"),
    sent_at=NOW,
    sender_list=ListPosition(1, DeviceListHash(b"s" * 32)),
    recipient_list=ListPosition(2, DeviceListHash(b"r" * 32)),
    body=b"body",
)
FLAG_AT = 16 + 1 + 5 + 8 + 80


def changed(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


# --- Content -------------------------------------------------------------------------------------------------


def test_the_layout_of_a_content() -> None:
    assert CONTENT.encode() == b"".join(
        (
            bytes(range(16)),
            b"\x01",
            b"\x04work",
            NOW.to_bytes(8, "big"),
            (1).to_bytes(8, "big") + b"s" * 32,
            (2).to_bytes(8, "big") + b"r" * 32,
            b"\x00",
            b"\0\0\0\x04body",
        )
    )


def test_a_first_message_carries_the_senders_list() -> None:
    first = replace(CONTENT, device_list=SIGNED_LIST)

    assert Content.decode(first.encode()) == first


@pytest.mark.parametrize("kind", [0, *ContentKind, 10, 255])
def test_every_kind_decodes_also_one_without_a_meaning(kind: int) -> None:
    content = replace(CONTENT, kind=int(kind))

    assert Content.decode(content.encode()).kind == kind


@pytest.mark.parametrize("conversation_id", ["", "c" * 128])
def test_conversation_ids_round_trip_at_their_bounds(conversation_id: str) -> None:
    content = replace(CONTENT, conversation_id=ConversationId(conversation_id))

    assert Content.decode(content.encode()) == content


@pytest.mark.parametrize("conversation_id", ["c" * 129, "a b", "a\0"])
def test_an_invalid_conversation_id_is_refused(conversation_id: str) -> None:
    with pytest.raises(MalformedMessageError):
        Content.decode(replace(CONTENT, conversation_id=ConversationId(conversation_id)).encode())


@pytest.mark.parametrize("flag", [2, 255])
def test_the_flag_of_the_device_list_is_0_or_1(flag: int) -> None:
    with pytest.raises(MalformedMessageError):
        Content.decode(changed(CONTENT.encode(), FLAG_AT, bytes([flag])))


def test_a_list_inside_a_content_may_have_no_trailing_bytes() -> None:
    raw = SIGNED_LIST.encode()
    encoded = CONTENT.encode()
    stuffed = encoded[:FLAG_AT] + b"\x01" + (len(raw) + 1).to_bytes(4, "big") + raw + b"x" + encoded[FLAG_AT + 1 :]

    with pytest.raises(MalformedMessageError, match="trailing"):
        Content.decode(stuffed)


def test_the_largest_message_fits_into_an_envelope() -> None:
    content = replace(
        CONTENT,
        conversation_id=ConversationId("c" * 128),
        body=encode_application(bytes(MAX_APPLICATION_DATA)),
        device_list=SIGNED_LIST,
    )

    assert Content.decode(content.encode()) == content
    # Envelope with two addresses, PreKeyMessage and the largest post-quantum payload around it.
    around = 1 + 16 + 2 * (1 + 128 + 16) + 1 + 4 + 4 + 1800 + 53 + 1216 + 44 + 16
    assert padded_length(len(content.encode())) + around < MAX_ENVELOPE


def test_a_body_that_nobody_would_decode_is_not_encoded() -> None:
    longest = MAX_APPLICATION_DATA + 1024

    assert Content.decode(replace(CONTENT, body=bytes(longest)).encode()).body == bytes(longest)
    with pytest.raises(ValueError, match="at most"):
        replace(CONTENT, body=bytes(longest + 1)).encode()
    encoded = changed(CONTENT.encode(), FLAG_AT + 1, (longest + 1).to_bytes(4, "big")) + bytes(longest - 3)
    with pytest.raises(MalformedMessageError, match="at most"):
        Content.decode(encoded)


@pytest.mark.parametrize("length", [5, 2**16, 2**31, 2**32 - 1])
def test_a_body_longer_than_what_follows_is_refused(length: int) -> None:
    with pytest.raises(MalformedMessageError):
        Content.decode(changed(CONTENT.encode(), FLAG_AT + 1, length.to_bytes(4, "big")))


# --- Application data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", "", b"\xff\0", "grüße 🗝", "a\0b", "\ufeffbom"], ids=range(6))
def test_bytes_come_back_as_bytes_and_text_as_text(data: bytes | str) -> None:
    decoded = decode_application(encode_application(data))

    assert decoded == data
    assert type(decoded) is type(data)


def test_64_kib_are_sent_and_a_byte_more_is_a_bug_of_the_caller() -> None:
    assert decode_application(encode_application(bytes(MAX_APPLICATION_DATA))) == bytes(MAX_APPLICATION_DATA)
    for data in (bytes(MAX_APPLICATION_DATA + 1), "é" * (MAX_APPLICATION_DATA // 2) + "x"):
        with pytest.raises(ValueError, match="at most 65536"):
            encode_application(data)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x02text",  # unknown format
        b"\xff",
        b"\x01\xff",  # not UTF-8
        b"\x01\xc0\x80",  # an overlong spelling of NUL
        b"\x01\xed\xa0\x80",  # a surrogate
        b"\x00" + bytes(MAX_APPLICATION_DATA + 1),
        b"\x01" + bytes(MAX_APPLICATION_DATA + 1),
    ],
    ids=range(8),
)
def test_other_application_data_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        decode_application(body)


# --- Receipts and retry requests -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, MAX_RECEIPT_IDS])
def test_receipts_and_retry_requests_round_trip_at_their_bounds(count: int) -> None:
    raw = [number.to_bytes(16, "big") for number in range(count)]
    receipt = Receipt(ReceiptType.READ, tuple(map(MessageId, raw)))
    envelope_ids = tuple(map(EnvelopeId, raw))

    assert Receipt.decode(receipt.encode()) == receipt
    assert decode_retry_request(encode_retry_request(envelope_ids)) == envelope_ids


@pytest.mark.parametrize("count", [0, 257])
def test_no_ids_or_too_many_are_refused_on_both_sides(count: int) -> None:
    assert MAX_RECEIPT_IDS == MAX_RETRY_IDS == 256
    with pytest.raises(ValueError):
        Receipt(ReceiptType.READ, (MessageId(bytes(16)),) * count).encode()
    with pytest.raises(ValueError):
        encode_retry_request((EnvelopeId(bytes(16)),) * count)
    head = count.to_bytes(2, "big")
    with pytest.raises(MalformedMessageError):
        Receipt.decode(b"\x01" + head + bytes(16 * count))
    with pytest.raises(MalformedMessageError):
        decode_retry_request(head + bytes(16 * count))


@pytest.mark.parametrize("kind", [0, 3, 255])
def test_an_unknown_type_of_receipt_is_refused(kind: int) -> None:
    with pytest.raises(MalformedMessageError):
        Receipt.decode(bytes([kind]) + b"\0\x01" + bytes(16))


# --- Device list updates -------------------------------------------------------------------------------------


def test_an_update_holds_1_to_16_lists() -> None:
    for count in (1, 16):
        assert decode_device_lists(encode_device_lists((SIGNED_LIST,) * count)) == (SIGNED_LIST,) * count
    for count in (0, 17):
        with pytest.raises(ValueError):
            encode_device_lists((SIGNED_LIST,) * count)
        one = encode_device_lists((SIGNED_LIST,))[1:]
        with pytest.raises(MalformedMessageError):
            decode_device_lists(bytes([count]) + one * count)


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x01", b"\x01\xff\xff\xff\xff", b"\x01\0\0\0\0"])
def test_other_updates_are_refused(body: bytes) -> None:
    with pytest.raises(E2EEError):
        decode_device_lists(body)
