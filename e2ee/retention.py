"""What is kept for how long, and what is forgotten then.

Owns: the end of everything in the store that has one.
Does not know about: when it is called (messenger.py), how long messages are kept (history.py), what the application
keeps of its own.
"""

from typing import Final

from e2ee import history, prekey_supply
from e2ee.limits import (
    LATE_ENVELOPE_MS,
    MAX_TIMESTAMP,
    OUTBOX_LIFETIME_MS,
    PENDING_TRUST_MS,
    SECOND_MS,
    SENT_CONTENT_MS,
)
from e2ee.ports import Table, Transaction
from e2ee.stores import message_records, records, sent_records, session_records, trust_records
from e2ee.stores.message_records import OutboxEntry
from e2ee.wire.envelope import Envelope, Lane

_KEPT_FOR_LATE_ENVELOPES: Final = (
    Table.BODY_HASHES,
    Table.MESSAGE_IDS,
    Table.UNREADABLE,
    Table.SENT,
    Table.RESENDS,
    Table.HEALING,
    Table.DROPPED,
    Table.EARLY_WORDS,
    Table.FAILED_SENDS,
)


def prune(tx: Transaction, now: int) -> None:
    """Delete what no late envelope can need any more.

    Only after the inbox was drained once since coming online: what it deletes could still decrypt.
    """
    for table in _KEPT_FOR_LATE_ENVELOPES:
        tx.delete_before(table, now - LATE_ENVELOPE_MS)
    tx.delete_before(Table.PENDING_TRUST, now - PENDING_TRUST_MS)
    _forget_removed_devices(tx, now)
    session_records.delete_superseded(tx, now)
    session_records.evict_old_skipped(tx, now)
    session_records.forget_closed_chains(tx, now)
    prekey_supply.retire(tx, now)


def expire_outbox(tx: Transaction, now: int) -> list[OutboxEntry]:
    """Give up on envelopes that no server accepted for 14 days, or, in lane 0, within their time to live."""
    deadline = now - OUTBOX_LIFETIME_MS
    given_up = [entry for entry in message_records.outbox(tx) if entry.created_at < deadline or _is_over(entry, now)]
    for entry in given_up:
        message_records.give_up(tx, entry, "expired", now)
    return given_up


def forget_contents(tx: Transaction, now: int, kept: bool) -> None:
    """Forget what was said too long ago to be said again; everything, unless it is `kept` at all.

    Nothing that the server does or omits puts this off.
    """
    sent_records.forget_contents(tx, now - SENT_CONTENT_MS if kept else MAX_TIMESTAMP)


def forget_history(tx: Transaction, now: int) -> None:
    """Delete messages whose time in the history is over. As above, nothing that the server does puts this off."""
    history.forget_old(tx, now)


def _forget_removed_devices(tx: Transaction, now: int) -> None:
    """End the sessions with devices that left 45 days ago; after as long again, forget that there were such devices."""
    for device in trust_records.removed_before(tx, now - LATE_ENVELOPE_MS):
        contact = records.load_contact(tx, device.user_id)
        if contact is not None and contact.device_list.content.device(device.device_id) is not None:
            trust_records.forget_removed(tx, device)
            continue
        for session in session_records.sessions_with(tx, device):
            session_records.delete_session(tx, session)
    for device in trust_records.removed_before(tx, now - 2 * LATE_ENVELOPE_MS):
        trust_records.forget_removed(tx, device)


def _is_over(entry: OutboxEntry, now: int) -> bool:
    """Say whether an envelope was about something that has passed by now, such as a call."""
    if now <= entry.created_at:
        return False
    envelope = Envelope.decode(entry.envelope)
    return envelope.lane is Lane.CONTROL and entry.created_at + envelope.ttl * SECOND_MS < now
