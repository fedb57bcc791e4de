"""Content: the plaintext of a message, before padding (protocol.md section 9).

Owns: the kinds of content and the bytes of those bodies that are acted on.
Does not know about: sessions, envelopes, what a kind causes.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, final

from e2ee.errors import MalformedMessageError
from e2ee.limits import MAX_APPLICATION_DATA, MAX_BODY, MAX_ENVELOPE, MAX_RECEIPT_IDS, MAX_RETRY_IDS
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.device_list import ListPosition, SignedDeviceList
from e2ee.wire.identifiers import (
    ConversationId,
    EnvelopeId,
    MessageId,
    decode_ascii,
    parse_conversation_id,
)

_MAX_LISTS: Final = 16


@final
class ContentKind(IntEnum):
    """What a content is. Other numbers decode too and are stored as unsupported, never acted on."""

    APPLICATION = 1
    RECEIPT = 2
    RETRY_REQUEST = 3
    DEVICE_LIST_UPDATE = 4
    SYNC = 5
    LINK = 6
    CALL = 7
    EMPTY = 8
    SESSION_RESET = 9


@final
class DataFormat(IntEnum):
    """Whether the application sent bytes or text."""

    BYTES = 0
    TEXT = 1


@final
class ReceiptType(IntEnum):
    """What happened to the messages that a receipt names."""

    DELIVERED = 1
    READ = 2


@final
@dataclass(frozen=True, slots=True)
class Content:
    """One content. `kind` is a plain integer because unknown kinds are kept."""

    message_id: MessageId
    kind: int
    conversation_id: ConversationId
    sent_at: int
    sender_list: ListPosition
    recipient_list: ListPosition
    body: bytes = field(repr=False)
    """Plaintext, so kept out of `repr`."""

    device_list: SignedDeviceList | None = None
    """The sender's own list; present in first messages and only there."""

    def encode(self) -> bytes:
        """Encode the content.

        | field | bytes |
        |---|---|
        | message id | 16 |
        | kind | u8 |
        | conversation id | u8 length, ASCII |
        | sent at | u64, Unix milliseconds |
        | sender's own list position, recipient's list position used | seq u64 and hash 32, twice |
        | device list | u8 present, then u32 length and bytes |
        | body | u32 length and bytes |

        Raises:
            ValueError: a body that `decode` would refuse as too long.
        """
        if len(self.body) > MAX_BODY:
            raise ValueError(f"a body holds at most {MAX_BODY} bytes, not {len(self.body)}")
        writer = Writer().raw(self.message_id.raw).u8(self.kind).ascii8(self.conversation_id).u64(self.sent_at)
        self.sender_list.encode_into(writer)
        self.recipient_list.encode_into(writer)
        if self.device_list is None:
            writer.u8(0)
        else:
            writer.u8(1).bytes32(self.device_list.encode())
        return writer.bytes32(self.body).finish()

    @classmethod
    def decode(cls, data: bytes) -> "Content":
        """Parse a content after its padding was removed.

        Raises:
            MalformedMessageError, InvalidPublicKeyError: it does not decode.
        """
        reader = Reader(data)
        message_id, kind = MessageId.decode(reader), reader.u8()
        conversation_id = parse_conversation_id(decode_ascii(reader.bytes8()))
        sent_at = reader.u64()
        sender_list, recipient_list = ListPosition.decode(reader), ListPosition.decode(reader)
        device_list = SignedDeviceList.decode(reader.bytes32(MAX_ENVELOPE)) if reader.flag() else None
        body = reader.bytes32(MAX_BODY)
        reader.finish()
        return cls(message_id, kind, conversation_id, sent_at, sender_list, recipient_list, body, device_list)


def encode_application(data: bytes | str) -> bytes:
    """`format u8 | data`: the body of an application message.

    Raises:
        ValueError: more than 64 KiB.
    """
    form, raw = (DataFormat.TEXT, data.encode()) if isinstance(data, str) else (DataFormat.BYTES, data)
    if len(raw) > MAX_APPLICATION_DATA:
        raise ValueError(f"a message holds at most {MAX_APPLICATION_DATA} bytes, not {len(raw)}")
    return bytes((form,)) + raw


def decode_application(body: bytes) -> bytes | str:
    """Return the application's bytes or text.

    Raises:
        MalformedMessageError: unknown format, invalid UTF-8, or more than 64 KiB.
    """
    form, data = body[:1], body[1:]
    if len(data) > MAX_APPLICATION_DATA:
        raise MalformedMessageError("application data is too long")
    if form == bytes((DataFormat.BYTES,)):
        return data
    if form != bytes((DataFormat.TEXT,)):
        raise MalformedMessageError("format of application data")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise MalformedMessageError("text is not UTF-8") from None


@final
@dataclass(frozen=True, slots=True)
class Receipt:
    """Says that messages were delivered to, or read on, the sending device."""

    type: ReceiptType
    message_ids: tuple[MessageId, ...]

    def encode(self) -> bytes:
        """`type u8 | count u16 | message ids 16 each`, 1 to 256 of them."""
        if not 1 <= len(self.message_ids) <= MAX_RECEIPT_IDS:
            raise ValueError(f"a receipt names 1 to {MAX_RECEIPT_IDS} messages")
        writer = Writer().u8(self.type).u16(len(self.message_ids))
        for message_id in self.message_ids:
            writer.raw(message_id.raw)
        return writer.finish()

    @classmethod
    def decode(cls, body: bytes) -> "Receipt":
        """Parse a receipt.

        Raises:
            MalformedMessageError: unknown type, no ids or too many, trailing bytes.
        """
        reader = Reader(body)
        value, count = reader.u8(), reader.u16()
        if value not in (ReceiptType.DELIVERED, ReceiptType.READ) or not 1 <= count <= MAX_RECEIPT_IDS:
            raise MalformedMessageError("receipt")
        ids = tuple(MessageId.decode(reader) for _ in range(count))
        reader.finish()
        return cls(ReceiptType(value), ids)


def encode_retry_request(envelope_ids: tuple[EnvelopeId, ...]) -> bytes:
    """`count u16 | envelope ids 16 each`: which envelopes could not be read, 1 to 256 of them."""
    if not 1 <= len(envelope_ids) <= MAX_RETRY_IDS:
        raise ValueError(f"a retry request names 1 to {MAX_RETRY_IDS} envelopes")
    return Writer().u16(len(envelope_ids)).raw(b"".join(each.raw for each in envelope_ids)).finish()


def decode_retry_request(body: bytes) -> tuple[EnvelopeId, ...]:
    """Parse a retry request.

    Raises:
        MalformedMessageError: no ids or too many, trailing bytes.
    """
    reader = Reader(body)
    count = reader.u16()
    if not 1 <= count <= MAX_RETRY_IDS:
        raise MalformedMessageError("retry request")
    ids = tuple(EnvelopeId.decode(reader) for _ in range(count))
    reader.finish()
    return ids


def encode_device_lists(lists: tuple[SignedDeviceList, ...]) -> bytes:
    """`count u8 | (u32 length and list) each`: consecutive links of the sender's chain, oldest first, 1 to 16."""
    if not 1 <= len(lists) <= _MAX_LISTS:
        raise ValueError(f"an update holds 1 to {_MAX_LISTS} lists")
    writer = Writer().u8(len(lists))
    for each in lists:
        writer.bytes32(each.encode())
    return writer.finish()


def decode_device_lists(body: bytes) -> tuple[SignedDeviceList, ...]:
    """Parse a device list update.

    Raises:
        MalformedMessageError, InvalidPublicKeyError: it does not decode.
    """
    reader = Reader(body)
    count = reader.u8()
    if not 1 <= count <= _MAX_LISTS:
        raise MalformedMessageError("device list update")
    lists = tuple(SignedDeviceList.decode(reader.bytes32(MAX_BODY)) for _ in range(count))
    reader.finish()
    return lists
