"""Where a message goes in the history, and what is later said about it.

Owns: one record for each message whatever way it came; its position; what counts as unread; the end of retention.
Does not know about: encryption, who may say what (receiving.py), the application (history_book.py).

A message stands in its conversation where it came, but never behind a later message of its author that came earlier.
Senders' clocks order the messages of one author, and nothing else: two people's clocks differ by more than it takes
to answer. What a sender claims of the future counts as now.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, final

from e2ee.limits import MAX_TIMESTAMP
from e2ee.ports import ReadTransaction, Transaction
from e2ee.stores import history_records
from e2ee.stores.history_records import (
    FOREVER,
    POSITION_SHIFT,
    ConversationRow,
    EarlyWord,
    EntryState,
    HistoryEntry,
    conversations_changed_after,
    delete_entries,
    delete_entry,
    early,
    entries,
    load_conversation,
    load_entry,
    note_early,
    save_conversation,
    save_entry,
    use_early,
)
from e2ee.wire.content import Content, ContentKind, Receipt, ReceiptType
from e2ee.wire.identifiers import ConversationId, DeviceAddress, DeviceId, MessageId, UserId
from e2ee.wire.sync import ReadMarks, SentCopy, decode_sync

_STEP: Final = 1 << POSITION_SHIFT
_LATEST_MS: Final = MAX_TIMESTAMP >> (POSITION_SHIFT + 1)
_PAGE: Final = 64
_MAX_LOOK_BACK: Final = 512
"""Messages of a conversation among which the place of a late one is looked for: the relay lets no more overtake it."""


@final
@dataclass(frozen=True, slots=True)
class Arrived:
    """A message on its way into the history."""

    message_id: MessageId
    author: UserId
    device: DeviceId
    peer: UserId
    conversation: ConversationId
    kind: int
    body: bytes = field(repr=False)
    sent_at: int
    ours: bool
    """Whether this user wrote it, on whatever device."""


@final
@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation as a list of them shows it."""

    peer: UserId
    conversation: ConversationId
    last: HistoryEntry | None
    """The newest message; None if all were deleted."""
    unread: int
    """Messages of the peer that were not marked as read."""
    change: int
    """Number of its last change, over all conversations."""


def add(tx: Transaction, arrived: Arrived, now: int) -> None:
    """Take a message into the history, if one is kept. One that is there already is left as it is."""
    if not history_records.retention(tx) or load_entry(tx, arrived.author, arrived.message_id) is not None:
        return
    row = load_conversation(tx, arrived.peer, arrived.conversation)
    row = row or ConversationRow(arrived.peer, arrived.conversation)
    now = min(now, _LATEST_MS)
    # Time does not go back in a conversation, even if our clock was set back.
    written_at = min(arrived.sent_at, max(now, row.newest >> POSITION_SHIFT))
    position, row = _place(tx, row, arrived, (written_at, now))
    said = early(tx, arrived.author, arrived.message_id)
    if said is not None:
        use_early(tx, arrived.author, arrived.message_id)
    state = said.state if said is not None and said.peer == arrived.peer else EntryState.NEW
    if arrived.ours and arrived.author == arrived.peer:
        state = EntryState.READ  # a note to ourselves: nobody else will say that they read it
    entry = HistoryEntry(
        message_id=arrived.message_id,
        author=arrived.author,
        device=arrived.device,
        peer=arrived.peer,
        conversation=arrived.conversation,
        kind=arrived.kind,
        body=arrived.body,
        sent_at=arrived.sent_at,
        written_at=written_at,
        received_at=now,
        state=state,
        position=position,
    )
    save_entry(tx, entry)
    if not arrived.ours and state is EntryState.NEW:
        row = replace(row, unread=row.unread + 1)
    save_conversation(tx, row)


def note_content(tx: Transaction, own: UserId, sender: DeviceAddress, content: Content, now: int) -> None:
    """Take note of a content that was received: of a message, of what was said about one, or of what we did elsewhere.

    The body was decoded before. Whether the sender may send a sync was judged before, too.
    """
    peer, kind, body = sender.user_id, content.kind, content.body
    if kind == ContentKind.RECEIPT:
        receipt = Receipt.decode(body)
        state = EntryState.READ if receipt.type is ReceiptType.READ else EntryState.DELIVERED
        # It counts for messages alone that we sent to this user.
        _advance(tx, (own, peer), receipt.message_ids, state, now)
        return
    if kind == ContentKind.SYNC:
        match decode_sync(body):
            case ReadMarks(author, message_ids):
                mark_read(tx, author, message_ids, now)
                return
            case SentCopy() as copy:
                peer, kind, body = copy.recipient, copy.kind, copy.body
            case None:
                return
    arrived = Arrived(
        message_id=content.message_id,
        author=sender.user_id,
        device=sender.device_id,
        peer=peer,
        conversation=content.conversation_id,
        kind=kind,
        body=body,
        sent_at=content.sent_at,
        ours=sender.user_id == own,
    )
    add(tx, arrived, now)


def mark_read(tx: Transaction, author: UserId, message_ids: Iterable[MessageId], now: int) -> tuple[MessageId, ...]:
    """Mark messages of another user as read; return those that were unread, as far as this device has them."""
    return _advance(tx, (author, author), message_ids, EntryState.READ, now)


def unread(tx: ReadTransaction, peer: UserId, conversation: ConversationId, through: int) -> tuple[MessageId, ...]:
    """Return the messages of a conversation that are unread up to a position, oldest first."""
    row = load_conversation(tx, peer, conversation)
    if row is None or row.unread == 0:
        return ()
    found: list[MessageId] = []
    left = row.unread
    # Newest first: what is unread is mostly the end, and how many there are is known.
    for entry in _newest_first(tx, peer, conversation, MAX_TIMESTAMP):
        if _is_unread(entry):
            left -= 1
            if entry.position <= through:
                found.append(entry.message_id)
        if left == 0:
            break
    return tuple(reversed(found))


def delete_message(tx: Transaction, author: UserId, message_id: MessageId) -> bool:
    """Delete a message; return whether there was one."""
    entry = load_entry(tx, author, message_id)
    if entry is None:
        return False
    delete_entry(tx, author, message_id)
    row = load_conversation(tx, entry.peer, entry.conversation)
    if row is not None:
        save_conversation(tx, replace(row, unread=row.unread - _is_unread(entry)))
    return True


def delete_conversation(tx: Transaction, peer: UserId, conversation: ConversationId) -> int:
    """Delete all messages of a conversation; return how many. What keeps the order of later ones stays."""
    row = load_conversation(tx, peer, conversation)
    if row is None:
        return 0
    save_conversation(tx, replace(row, unread=0))
    return delete_entries(tx, peer, conversation)


def forget_old(tx: Transaction, now: int) -> None:
    """Delete what is older than the retention says; a history that is not kept any more, altogether."""
    kept = history_records.retention(tx)
    if kept == FOREVER:
        return
    before = _position(max(now - kept, 0)) - 1 if kept else MAX_TIMESTAMP
    for row in conversations_changed_after(tx, 0):
        deleted, unread_of_them = 0, 0
        while some := entries(tx, row.peer, row.conversation, (0, before), limit=_PAGE):
            for entry in some:
                delete_entry(tx, entry.author, entry.message_id)
            deleted += len(some)
            unread_of_them += sum(map(_is_unread, some))
        if deleted:
            save_conversation(tx, replace(row, unread=row.unread - unread_of_them))


def conversations(tx: ReadTransaction, after: int = 0) -> list[Conversation]:
    """Return the conversations that changed after a change, in the order of their last changes."""
    return [
        Conversation(row.peer, row.conversation, _last(tx, row), row.unread, row.change)
        for row in conversations_changed_after(tx, after)
    ]


def between(since: int | None, until: int | None) -> tuple[int, int]:
    """Return the bounds of positions of messages that came since `since` and before `until`, Unix milliseconds."""
    first = 0 if since is None else _position(max(since, 0))
    return first, MAX_TIMESTAMP if until is None else _position(max(until, 0)) - 1


def _position(milliseconds: int) -> int:
    return min(milliseconds, _LATEST_MS) << POSITION_SHIFT


def _place(
    tx: ReadTransaction, row: ConversationRow, arrived: Arrived, times: tuple[int, int]
) -> tuple[int, ConversationRow]:
    """Return a message's position, and the conversation with what follows from it."""
    written, now = times
    newest_written = row.newest_of_ours if arrived.ours else row.newest_of_peer
    if written < newest_written:
        between_two = _place_of_late(tx, arrived, written)
        if between_two is not None:
            return between_two, row
    position = max(_position(now), row.newest + _STEP)
    latest = max(written, newest_written)
    if arrived.ours:
        return position, replace(row, newest=position, newest_of_ours=latest)
    return position, replace(row, newest=position, newest_of_peer=latest)


def _place_of_late(tx: ReadTransaction, arrived: Arrived, written: int) -> int | None:
    """Return a position before the first later message of the same device; None if none is found, or there is no room.

    Of the same device, because two devices of one user have two clocks.
    """
    later = older = None
    for entry in _newest_first(tx, arrived.peer, arrived.conversation, _MAX_LOOK_BACK):
        if later is not None and older is None:
            older = entry
        if (entry.author, entry.device) != (arrived.author, arrived.device):
            continue
        if entry.written_at <= written:
            break
        later, older = entry, None
    if later is None:
        return None
    lower = later.position - 2 * _STEP if older is None else older.position
    position = (lower + later.position) // 2
    return position if lower < position and position >= 0 else None


def _newest_first(
    tx: ReadTransaction, peer: UserId, conversation: ConversationId, at_most: int
) -> Iterator[HistoryEntry]:
    """Yield messages of a conversation from its end, a page at a time."""
    until = MAX_TIMESTAMP
    for _ in range(0, at_most, _PAGE):
        page = entries(tx, peer, conversation, (0, until), limit=_PAGE, newest_first=True)
        yield from page
        if len(page) < _PAGE:
            return
        until = page[-1].position - 1


def _last(tx: ReadTransaction, row: ConversationRow) -> HistoryEntry | None:
    newest = entries(tx, row.peer, row.conversation, (0, MAX_TIMESTAMP), limit=1, newest_first=True)
    return newest[0] if newest else None


def _is_unread(entry: HistoryEntry) -> bool:
    return entry.author == entry.peer and entry.state is EntryState.NEW


def _advance(
    tx: Transaction,
    author_and_peer: tuple[UserId, UserId],
    message_ids: Iterable[MessageId],
    state: EntryState,
    now: int,
) -> tuple[MessageId, ...]:
    """Let messages of an author in conversations with a peer be at least in a state; return those that changed."""
    author, peer = author_and_peer
    if not history_records.retention(tx):
        return ()
    changed: dict[ConversationId, list[HistoryEntry]] = {}
    for message_id in message_ids:
        entry = load_entry(tx, author, message_id)
        if entry is None:
            # Perhaps it is on its way: what is said about it may be faster.
            note_early(tx, (author, message_id), EarlyWord(peer, state), now)
        elif entry.peer == peer and entry.state < state:
            save_entry(tx, replace(entry, state=state))
            changed.setdefault(entry.conversation, []).append(entry)
    for conversation, advanced in changed.items():
        row = load_conversation(tx, peer, conversation)
        if row is not None:
            save_conversation(tx, replace(row, unread=row.unread - sum(map(_is_unread, advanced))))
    return tuple(entry.message_id for each in changed.values() for entry in each)
