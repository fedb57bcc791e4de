"""The history on its way into an export, and out of one into a history that may hold messages already.

Owns: which messages are exported, in batches; that a message which is there already is not doubled; what is known of it
on both sides.
Does not know about: the file (export_file.py), where new messages go (history.py).

A message keeps the position that it had, which is its time: so what was exported and what came since stand in order,
whichever is there first. What was deleted here after the export comes back with it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from e2ee.limits import MAX_TIMESTAMP
from e2ee.ports import ReadTransaction, Store, Transaction
from e2ee.stores import history_records
from e2ee.stores.history_records import POSITION_SHIFT, ConversationRow, EntryState, HistoryEntry
from e2ee.transfer import MAX_POSITION, ExportedMessage
from e2ee.wire.identifiers import ConversationId, UserId

_PAGE: Final = 64
_MAX_STEPS: Final = 64
"""Places beside a taken one that are tried for a message before it goes to the end."""


def pages(store: Store) -> Iterator[list[ExportedMessage]]:
    """Yield the whole history in pages, conversation by conversation, oldest first; a transaction for each page."""
    with store.read() as tx:
        rows = history_records.conversations_changed_after(tx, 0)
    for row in rows:
        first = 0
        while True:
            with store.read() as tx:
                within = first, MAX_TIMESTAMP
                page = history_records.entries(tx, row.peer, row.conversation, within, limit=_PAGE)
            if not page:
                break
            yield [_exported(entry) for entry in page]
            first = page[-1].position + 1


def restore_retention(tx: Transaction, retention: int) -> None:
    """Keep messages as the exporting device did; 0 is for an export without a history."""
    if retention:
        history_records.set_retention(tx, retention)


def merge(tx: Transaction, owner: UserId, messages: Sequence[ExportedMessage], now: int) -> int:
    """Take messages into the history, if one is kept here; return how many were new."""
    if not history_records.retention(tx):
        return 0
    added = 0
    rows: dict[tuple[UserId, ConversationId], ConversationRow] = {}
    for message in messages:
        name = message.peer, message.conversation
        row = rows.get(name) or history_records.load_conversation(tx, *name) or ConversationRow(*name)
        known = history_records.load_entry(tx, message.author, message.message_id)
        if known is None:
            rows[name] = _add(tx, owner, row, message, now)
            added += 1
        elif (known.peer, known.conversation) == name and known.state < message.state:
            history_records.save_entry(tx, replace(known, state=EntryState(message.state)))
            rows[name] = replace(row, unread=row.unread - _is_unread(known))
    for row in rows.values():
        history_records.save_conversation(tx, row)
    return added


def _add(tx: Transaction, owner: UserId, row: ConversationRow, message: ExportedMessage, now: int) -> ConversationRow:
    # As for one that arrives: what is said to be written later than that would stand behind all that follows.
    written_at = min(message.written_at, max(now, max(row.newest, message.position) >> POSITION_SHIFT))
    said = history_records.early(tx, message.author, message.message_id)
    state = EntryState(message.state)
    if said is not None and said.peer == message.peer:
        state = max(state, said.state)
    entry = HistoryEntry(
        message_id=message.message_id,
        author=message.author,
        device=message.device,
        peer=message.peer,
        conversation=message.conversation,
        kind=message.kind,
        body=message.body,
        sent_at=message.sent_at,
        written_at=written_at,
        received_at=message.received_at,
        state=state,
        position=_free(tx, row, message.position),
    )
    history_records.save_entry(tx, entry)
    row = replace(row, newest=max(row.newest, entry.position), unread=row.unread + _is_unread(entry))
    if message.author == owner:
        return replace(row, newest_of_ours=max(row.newest_of_ours, written_at))
    return replace(row, newest_of_peer=max(row.newest_of_peer, written_at))


def _free(tx: ReadTransaction, row: ConversationRow, position: int) -> int:
    """Return the position, or the next one that no message of the conversation has."""
    for at in range(position, position + _MAX_STEPS):
        if not history_records.entries(tx, row.peer, row.conversation, (at, at), limit=1):
            return at
    return row.newest + 1


def _is_unread(entry: HistoryEntry) -> bool:
    return entry.author == entry.peer and entry.state is EntryState.NEW


def _exported(entry: HistoryEntry) -> ExportedMessage:
    return ExportedMessage(
        message_id=entry.message_id,
        author=entry.author,
        device=entry.device,
        peer=entry.peer,
        conversation=entry.conversation,
        kind=entry.kind,
        sent_at=entry.sent_at,
        written_at=entry.written_at,
        received_at=entry.received_at,
        state=entry.state,
        # A clock that was wrong by ages, and then everything behind it: still an export that can be opened.
        position=min(entry.position, MAX_POSITION),
        body=entry.body,
    )
