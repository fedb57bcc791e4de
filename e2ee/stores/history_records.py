"""Typed views of a transaction: the history of messages, and the conversations they make up.

Owns: keys, groups and values of history and conversations.
Does not know about: where a message goes in its conversation, what counts as unread (history.py).

One record for each message under (message id, author), so that one message is one record whatever way it came. Its
group is the conversation, its order the position in it. One record for each conversation, whose order is the number of
its last change, so that what changed since can be read without reading the rest.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, final

from e2ee.errors import CorruptStateError, MalformedMessageError, ProtocolError
from e2ee.limits import MAX_ENVELOPE, MAX_TIMESTAMP
from e2ee.ports import ReadTransaction, Record, Table, Transaction
from e2ee.primitives import kdf
from e2ee.stores.records import counter, next_counter, set_counter
from e2ee.wire.codec import Reader, Writer
from e2ee.wire.content import ContentKind, decode_application
from e2ee.wire.identifiers import (
    ConversationId,
    DeviceId,
    MessageId,
    UserId,
    decode_ascii,
    parse_conversation_id,
    parse_user_id,
)

_VERSION: Final = 1
_CHANGE: Final = b"history change"
_RETENTION: Final = b"history retention"
_CONVERSATIONS: Final = b""
_MAX_EARLY: Final = 4_096
"""Words about messages that are not here yet, for each peer: one of them cannot crowd out what others say."""
_BY_US: Final = b"\0"
"""Names no user: what our own devices say about messages of others."""

FOREVER: Final = MAX_TIMESTAMP
"""A retention that never ends."""

POSITION_SHIFT: Final = 16
"""Positions are milliseconds in units of 2^-16, so that a late message fits between two that came in the same one."""


@final
class EntryState(IntEnum):
    """How far a message has come. It only ever grows."""

    NEW = 0
    """Ours: sent. Another's: unread."""
    DELIVERED = 1
    """Ours: a device of the other user says that it has it."""
    READ = 2
    """Ours: the other user has read it. Another's: it was read here, or on another of our devices."""


@final
@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One message in the history of this device. Its `repr` holds no content. Times are Unix milliseconds."""

    message_id: MessageId
    author: UserId
    """Who wrote it: `peer`, or ourselves."""
    device: DeviceId
    """The author's device that sent it."""
    peer: UserId
    """The other user of the conversation."""
    conversation: ConversationId
    kind: int
    body: bytes = field(repr=False)
    sent_at: int
    """The author's clock; shown, never trusted."""
    written_at: int
    """`sent_at`, or when it came if that claims the future: orders the messages of one device."""
    received_at: int
    """Our clock."""
    state: EntryState
    position: int
    """Orders the messages of a conversation; never changes."""

    @property
    def data(self) -> bytes | str | None:
        """What the author's application sent; None for a missed call and for kinds that this release does not know."""
        if self.kind != ContentKind.APPLICATION:
            return None
        try:
            return decode_application(self.body)
        except MalformedMessageError:
            raise CorruptStateError("application data of the history does not decode") from None


@final
@dataclass(frozen=True, slots=True)
class ConversationRow:
    """What is kept of a conversation beside its messages."""

    peer: UserId
    conversation: ConversationId
    unread: int = 0
    newest: int = 0
    """The highest position given out."""
    newest_of_peer: int = 0
    """The latest time at which the peer is known to have written, Unix milliseconds."""
    newest_of_ours: int = 0
    change: int = 0
    """Number of the last change, over all conversations."""


def retention(tx: ReadTransaction) -> int:
    """Return how many milliseconds messages are kept; 0 is not at all, which is the default."""
    return counter(tx, _RETENTION)


def set_retention(tx: Transaction, milliseconds: int) -> None:
    set_counter(tx, _RETENTION, milliseconds)


# --- messages ------------------------------------------------------------------------------------------------


def save_entry(tx: Transaction, entry: HistoryEntry) -> None:
    writer = Writer().u8(_VERSION).ascii8(entry.author).raw(entry.device.raw)
    writer.ascii8(entry.peer).ascii8(entry.conversation).u8(entry.kind).u64(entry.sent_at).u64(entry.written_at)
    value = writer.u64(entry.received_at).u8(entry.state).u64(entry.position).bytes32(entry.body).finish()
    group = _group(entry.peer, entry.conversation)
    tx.put(Table.HISTORY, _key(entry.author, entry.message_id), value, group=group, order=entry.position)


def load_entry(tx: ReadTransaction, author: UserId, message_id: MessageId) -> HistoryEntry | None:
    """Return a message, or None if it is not in the history."""
    data = tx.get(Table.HISTORY, _key(author, message_id))
    return None if data is None else _decode_entry(message_id, data)


def entries(
    tx: ReadTransaction,
    peer: UserId,
    conversation: ConversationId,
    within: tuple[int, int],
    *,
    limit: int | None = None,
    newest_first: bool = False,
) -> list[HistoryEntry]:
    """Return messages of a conversation whose positions are within bounds, both included, by position."""
    found = tx.scan_range(Table.HISTORY, _group(peer, conversation), within, limit=limit, newest_first=newest_first)
    return [_decode_record(record) for record in found]


def delete_entry(tx: Transaction, author: UserId, message_id: MessageId) -> None:
    tx.delete(Table.HISTORY, _key(author, message_id))


def delete_entries(tx: Transaction, peer: UserId, conversation: ConversationId) -> int:
    """Delete all messages of a conversation; return how many."""
    return tx.delete_group(Table.HISTORY, _group(peer, conversation))


# --- what is said about messages that are not here yet -------------------------------------------------------


def note_early(tx: Transaction, message: tuple[UserId, MessageId], word: "EarlyWord", now: int) -> None:
    """Remember what was said about a message, (author, id), that has not come yet. Beyond 4,096 words the oldest go: of
    one peer about what we sent; of our own devices about what others sent, whosever it is.
    """
    (author, message_id), group = message, _BY_US if message[0] == word.peer else word.peer.encode()
    known = early(tx, author, message_id)
    if known is None or (known.peer == word.peer and known.state < word.state):
        value = Writer().u8(_VERSION).ascii8(word.peer).u8(word.state).finish()
        tx.put(Table.EARLY_WORDS, _key(author, message_id), value, group=group, order=min(now, MAX_TIMESTAMP))
    surplus = tx.count(Table.EARLY_WORDS, group) - _MAX_EARLY
    if surplus > 0:
        for record in tx.scan(Table.EARLY_WORDS, group, limit=surplus):
            tx.delete(Table.EARLY_WORDS, record.key)


def early(tx: ReadTransaction, author: UserId, message_id: MessageId) -> "EarlyWord | None":
    """Return what was said about a message before it came."""
    data = tx.get(Table.EARLY_WORDS, _key(author, message_id))
    if data is None:
        return None
    reader = Reader(data)
    try:
        if (version := reader.u8()) != _VERSION:
            raise CorruptStateError(f"a word about a message has layout version {version}")
        word = EarlyWord(parse_user_id(decode_ascii(reader.bytes8())), EntryState(reader.u8()))
        reader.finish()
    except (ProtocolError, ValueError):
        raise CorruptStateError("a word about a message does not decode") from None
    return word


def use_early(tx: Transaction, author: UserId, message_id: MessageId) -> None:
    """Forget what was said about a message: it has come."""
    tx.delete(Table.EARLY_WORDS, _key(author, message_id))


@final
@dataclass(frozen=True, slots=True)
class EarlyWord:
    """How far a message has come that this device has not seen, if it is one of the conversation with `peer`."""

    peer: UserId
    state: EntryState


# --- conversations -------------------------------------------------------------------------------------------


def load_conversation(tx: ReadTransaction, peer: UserId, conversation: ConversationId) -> ConversationRow | None:
    data = tx.get(Table.CONVERSATIONS, _group(peer, conversation))
    return None if data is None else _decode_conversation(data)


def save_conversation(tx: Transaction, row: ConversationRow) -> None:
    """Save a conversation under the next number of change."""
    change = next_counter(tx, _CHANGE)
    writer = Writer().u8(_VERSION).ascii8(row.peer).ascii8(row.conversation).u64(change).u32(row.unread)
    value = writer.u64(row.newest).u64(row.newest_of_peer).u64(row.newest_of_ours).finish()
    key = _group(row.peer, row.conversation)
    tx.put(Table.CONVERSATIONS, key, value, group=_CONVERSATIONS, order=change)


def conversations_changed_after(tx: ReadTransaction, change: int) -> list[ConversationRow]:
    """Return conversations whose last change has a higher number, in the order of these changes."""
    found = tx.scan_range(Table.CONVERSATIONS, _CONVERSATIONS, (change + 1, MAX_TIMESTAMP))
    return [_decode_conversation(record.value) for record in found]


def _key(author: UserId, message_id: MessageId) -> bytes:
    return message_id.raw + author.encode()


def _group(peer: UserId, conversation: ConversationId) -> bytes:
    # A hash, because the two names together may be longer than a group.
    return kdf.sha256(Writer().ascii8(peer).ascii8(conversation).finish())


def _decode_record(record: Record) -> HistoryEntry:
    return _decode_entry(MessageId(record.key[:16]), record.value)


def _decode_entry(message_id: MessageId, data: bytes) -> HistoryEntry:
    reader = Reader(data)
    try:
        if (version := reader.u8()) != _VERSION:
            raise CorruptStateError(f"history has layout version {version}")
        author, device = parse_user_id(decode_ascii(reader.bytes8())), DeviceId.decode(reader)
        peer, conversation = _read_names(reader)
        kind, sent_at, written_at, received_at = reader.u8(), reader.u64(), reader.u64(), reader.u64()
        state, position, body = EntryState(reader.u8()), reader.u64(), reader.bytes32(MAX_ENVELOPE)
        reader.finish()
    except (ProtocolError, ValueError):
        raise CorruptStateError("a message of the history does not decode") from None
    return HistoryEntry(
        message_id=message_id,
        author=author,
        device=device,
        peer=peer,
        conversation=conversation,
        kind=kind,
        body=body,
        sent_at=sent_at,
        written_at=written_at,
        received_at=received_at,
        state=state,
        position=position,
    )


def _decode_conversation(data: bytes) -> ConversationRow:
    reader = Reader(data)
    try:
        if (version := reader.u8()) != _VERSION:
            raise CorruptStateError(f"conversation has layout version {version}")
        peer, conversation = _read_names(reader)
        change, unread = reader.u64(), reader.u32()
        newest, newest_of_peer, newest_of_ours = reader.u64(), reader.u64(), reader.u64()
        reader.finish()
    except ProtocolError:
        raise CorruptStateError("conversation does not decode") from None
    return ConversationRow(peer, conversation, unread, newest, newest_of_peer, newest_of_ours, change)


def _read_names(reader: Reader) -> tuple[UserId, ConversationId]:
    peer = parse_user_id(decode_ascii(reader.bytes8()))
    return peer, parse_conversation_id(decode_ascii(reader.bytes8()))
