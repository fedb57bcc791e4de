"""Sync: what a device tells the other devices of its own user (protocol.md section 9.9).

Owns: the bytes of a sync body.
Does not know about: sessions, who may send one, what it causes.
"""

from dataclasses import dataclass, field
from typing import Final, final

from e2ee.errors import MalformedMessageError
from e2ee.limits import MAX_RECEIPT_IDS
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.content import ContentKind, decode_application
from e2ee.wire.identifiers import MessageId, UserId, decode_ascii, parse_user_id

_SENT: Final = 1
_READ: Final = 2


@final
@dataclass(frozen=True, slots=True)
class SentCopy:
    """A message that this user sent from another device. Message id, conversation id and time are the Content's."""

    recipient: UserId
    kind: int
    body: bytes = field(repr=False)
    """Plaintext, so kept out of `repr`."""

    def encode(self) -> bytes:
        """`1 u8 | recipient ascii8 | kind u8 | the message's body`."""
        return Writer().u8(_SENT).ascii8(self.recipient).u8(self.kind).raw(self.body).finish()


@final
@dataclass(frozen=True, slots=True)
class ReadMarks:
    """Messages of another user, 1 to 256, that were read on another device of this user."""

    author: UserId
    message_ids: tuple[MessageId, ...]

    def encode(self) -> bytes:
        """`2 u8 | author ascii8 | number u16 | message ids 16 each`."""
        if not 1 <= len(self.message_ids) <= MAX_RECEIPT_IDS:
            raise ValueError(f"a sync names 1 to {MAX_RECEIPT_IDS} messages")
        writer = Writer().u8(_READ).ascii8(self.author).u16(len(self.message_ids))
        return writer.raw(b"".join(each.raw for each in self.message_ids)).finish()


def decode_sync(body: bytes) -> SentCopy | ReadMarks | None:
    """Parse a sync body; None for a type that this release does not know, which means nothing.

    Raises:
        MalformedMessageError: empty, or it does not decode; the copy of a message that is not application data, or
            whose body does not decode.
    """
    reader = Reader(body)
    match reader.u8():
        case 1:
            return _read_copy(reader, body)
        case 2:
            return _read_marks(reader)
        case _:
            return None


def _read_copy(reader: Reader, body: bytes) -> SentCopy:
    recipient, kind = parse_user_id(decode_ascii(reader.bytes8())), reader.u8()
    if kind != ContentKind.APPLICATION:
        raise MalformedMessageError("copy of another kind than application data")
    copied = body[reader.position() :]
    decode_application(copied)
    return SentCopy(recipient, kind, copied)


def _read_marks(reader: Reader) -> ReadMarks:
    author, count = parse_user_id(decode_ascii(reader.bytes8())), reader.u16()
    if not 1 <= count <= MAX_RECEIPT_IDS:
        raise MalformedMessageError("number of messages in a sync")
    ids = tuple(MessageId.decode(reader) for _ in range(count))
    reader.finish()
    return ReadMarks(author, ids)
