"""The bytes of secrets on their way to another device of the same user, or to a later one, before they are sealed.

Owns: the layouts of what a link bundle seals, and of what an export seals: the account, and messages of its history.
Does not know about: how they are sealed (linking.py, recovery.py), secrets at rest (persist.py).

What is decoded here was authenticated as coming from a device of our own; it may still be hostile, so it fails like
any bytes from outside.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, final

from e2ee.errors import MalformedMessageError, UnsupportedVersionError
from e2ee.limits import MAX_BODY, MAX_TIMESTAMP
from e2ee.private_keys import AccountKeyPair, SecretBytes, SeedBytes32
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.contacts import ContactEntry, DecisionEntry, check_contacts_ascend
from e2ee.wire.content import ContentKind, decode_application
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import (
    ConversationId,
    DeviceId,
    MessageId,
    UserId,
    decode_ascii,
    parse_conversation_id,
    parse_user_id,
)

HISTORY_SECTION: Final = 1
"""The kind of the section that says how the history is sealed, which follows the account in an export."""

_LINK_VERSION: Final = 1
_EXPORT_VERSION: Final = 1
_IN_HISTORY: Final = (ContentKind.APPLICATION, ContentKind.CALL)
_STATES: Final = 2
MAX_POSITION: Final = MAX_TIMESTAMP >> 1
"""So that what comes later finds a place behind it."""


@final
@dataclass(frozen=True, slots=True)
class LinkPayload:
    """What a new device needs to belong to an account."""

    user_id: UserId
    account_key_pair: AccountKeyPair
    device_list: SignedDeviceList
    """The newest, without the new device."""

    def encode(self) -> bytes:
        """`0x01 | user id u8 length | account private key 32 | signed device list u16 length`."""
        writer = Writer().u8(_LINK_VERSION).ascii8(self.user_id).raw(self.account_key_pair.seed.expose())
        return writer.bytes16(self.device_list.encode()).finish()

    @classmethod
    def decode(cls, data: bytes) -> "LinkPayload":
        """Parse what was unsealed.

        Raises:
            MalformedMessageError, UnsupportedVersionError, InvalidPublicKeyError: it is no payload.
        """
        reader = Reader(data)
        version = reader.u8()
        if version != _LINK_VERSION:
            raise UnsupportedVersionError("link payload", version)
        user_id, seed = parse_user_id(decode_ascii(reader.bytes8())), reader.fixed(SeedBytes32.LENGTH)
        device_list = SignedDeviceList.decode(reader.bytes16())
        reader.finish()
        return cls(user_id, AccountKeyPair(SeedBytes32(seed)), device_list)


@final
@dataclass(frozen=True, slots=True)
class ExportPayload:
    """What is left of an account without its devices. Sections of a kind that this release lacks are kept as bytes."""

    account_key_pair: AccountKeyPair
    device_list: SignedDeviceList
    """The newest of the account."""
    policy: int
    contacts: tuple[ContactEntry, ...]
    decisions: tuple[DecisionEntry, ...]
    sections: tuple[tuple[int, bytes], ...] = field(default=(), repr=False)
    """For what comes later, such as the history: (kind, bytes), in ascending order of kinds, each once. They may hold
    keys, so they are kept out of `repr`."""

    def encode(self) -> bytes:
        """Encode.

        | field | bytes |
        |---|---|
        | version | u8, 0x01 |
        | account private key | 32 |
        | newest device list | u16 length |
        | policy | u8 |
        | contacts | u32 count, then each |
        | decisions | u32 count, then each |
        | sections | u8 count, then kind u8 and bytes with u32 length each |
        """
        writer = Writer().u8(_EXPORT_VERSION).raw(self.account_key_pair.seed.expose())
        writer.bytes16(self.device_list.encode()).u8(self.policy).u32(len(self.contacts))
        for contact in self.contacts:
            contact.encode_into(writer)
        writer.u32(len(self.decisions))
        for decision in self.decisions:
            decision.encode_into(writer)
        writer.u8(len(self.sections))
        for kind, data in self.sections:
            writer.u8(kind).bytes32(data)
        return writer.finish()

    @classmethod
    def decode(cls, data: bytes) -> "ExportPayload":
        """Parse what was unsealed.

        Raises:
            MalformedMessageError, UnsupportedVersionError, InvalidPublicKeyError: it is no payload.
        """
        reader = Reader(data)
        version = reader.u8()
        if version != _EXPORT_VERSION:
            raise UnsupportedVersionError("export payload", version)
        pair = AccountKeyPair(SeedBytes32(reader.fixed(SeedBytes32.LENGTH)))
        device_list, policy = SignedDeviceList.decode(reader.bytes16()), reader.u8()
        # A count that is too high runs out of bytes: nothing is allocated by it.
        contacts = tuple(ContactEntry.decode(reader) for _ in range(reader.u32()))
        decisions = tuple(DecisionEntry.decode(reader) for _ in range(reader.u32()))
        sections = tuple((reader.u8(), reader.bytes32(len(data))) for _ in range(reader.u8()))
        reader.finish()
        check_contacts_ascend(contacts)
        if any(later <= earlier for (earlier, _), (later, _) in pairwise(sections)):
            raise MalformedMessageError("sections of an export ascend, each once")
        return cls(pair, device_list, policy, contacts, decisions, sections)

    def section(self, kind: int) -> bytes | None:
        """Return the bytes of a section, or None."""
        return next((data for each, data in self.sections if each == kind), None)


@final
class HistoryKey(SecretBytes):
    """Seals the history of one export, and nothing else."""

    __slots__ = ()


@final
@dataclass(frozen=True, slots=True)
class HistorySection:
    """How the history is sealed that follows the account, and how long its device kept messages."""

    key: HistoryKey
    retention: int
    """Milliseconds, 1 to 2^63 - 1, which is for ever."""

    def encode(self) -> bytes:
        """`key 32 | retention u64`."""
        return Writer().raw(self.key.expose()).u64(self.retention).finish()

    @classmethod
    def decode(cls, data: bytes) -> "HistorySection":
        """Parse the section.

        Raises:
            MalformedMessageError: it is none.
        """
        reader = Reader(data)
        section = cls(HistoryKey(reader.fixed(HistoryKey.LENGTH)), reader.u64())
        reader.finish()
        if section.retention == 0:
            raise MalformedMessageError("a history that is not kept has no section")
        return section


@final
@dataclass(frozen=True, slots=True)
class ExportedMessage:
    """A message of the history (`stores.history_records.HistoryEntry`). Times are Unix milliseconds."""

    message_id: MessageId
    author: UserId
    device: DeviceId
    peer: UserId
    conversation: ConversationId
    kind: int
    sent_at: int
    written_at: int
    received_at: int
    state: int
    position: int
    body: bytes = field(repr=False)
    """Plaintext, so kept out of `repr`."""

    def encode_into(self, writer: Writer) -> None:
        """Encode.

        | field | bytes |
        |---|---|
        | message id | 16 |
        | author | u8 length, ASCII |
        | the author's device | 16 |
        | peer | u8 length, ASCII |
        | conversation id | u8 length, ASCII |
        | kind | u8 |
        | sent at, written at, received at | u64 each |
        | state | u8: 0 new, 1 delivered, 2 read |
        | position | u64, below 2^62 |
        | body | u32 length and bytes |
        """
        writer.raw(self.message_id.raw).ascii8(self.author).raw(self.device.raw).ascii8(self.peer)
        writer.ascii8(self.conversation).u8(self.kind).u64(self.sent_at).u64(self.written_at).u64(self.received_at)
        writer.u8(self.state).u64(self.position).bytes32(self.body)

    @classmethod
    def decode(cls, reader: Reader, owner: UserId) -> "ExportedMessage":
        """Take a message off a reader.

        Raises:
            MalformedMessageError: it does not decode, is of a kind that no history holds, or is neither the owner's nor
                the peer's.
        """
        message_id, author, device = MessageId.decode(reader), _user_id(reader), DeviceId.decode(reader)
        peer, conversation = _user_id(reader), parse_conversation_id(decode_ascii(reader.bytes8()))
        kind, sent_at, written_at, received_at = reader.u8(), reader.u64(), reader.u64(), reader.u64()
        state, position, body = reader.u8(), reader.u64(), reader.bytes32(MAX_BODY)
        if author not in (owner, peer) or state > _STATES or position > MAX_POSITION:
            raise MalformedMessageError("a message of an exported history")
        if kind in tuple(ContentKind) and kind not in _IN_HISTORY:
            raise MalformedMessageError("a kind of content that no history holds")
        if kind == ContentKind.APPLICATION:
            decode_application(body)
        names = message_id, author, device, peer, conversation
        return cls(*names, kind, sent_at, written_at, received_at, state, position, body)


def decode_messages(data: bytes, owner: UserId) -> tuple[ExportedMessage, ...]:
    """Parse messages that follow one another to the end.

    Raises:
        MalformedMessageError: see `ExportedMessage.decode`.
    """
    reader, messages = Reader(data), list[ExportedMessage]()
    while reader.position() < len(data):
        messages.append(ExportedMessage.decode(reader, owner))
    return tuple(messages)


def _user_id(reader: Reader) -> UserId:
    return parse_user_id(decode_ascii(reader.bytes8()))
