"""What time does to a mailbox: envelopes expire, tombstones and undelivered notices go.

Owns: when a row changes its state by age or by number.
Does not know about: acks and delivery (mailbox.py). Each call does a bounded piece; the caller repeats it.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, case, delete, select, update

from transport_adapters.server.mailbox import Mailbox
from transport_adapters.server.tables import ACKED, EXPIRED, STORED

BATCH: Final = 500
"""Rows changed by one call."""


def expire(mailbox: Mailbox, connection: Connection, now: int) -> int:
    """Turn envelopes past their time to live into bodiless rows. Return how many; at most BATCH."""
    envelopes = mailbox.tables.envelopes.c
    due = connection.execute(
        select(envelopes.inbox_id, envelopes.seq)
        .where(envelopes.state == STORED, envelopes.expires_at <= now)
        .order_by(envelopes.expires_at)
        .limit(BATCH)
    ).all()
    for inbox_id, seqs in _by_inbox(due):
        _expire_inbox(mailbox, connection, inbox_id, seqs)
    return len(due)


def purge(mailbox: Mailbox, connection: Connection, now: int) -> int:
    """Delete rows of 45 days and more, acked or expired. Return how many; at most BATCH."""
    envelopes = mailbox.tables.envelopes
    old = connection.execute(
        select(envelopes.c.inbox_id, envelopes.c.seq)
        .where(envelopes.c.created_at <= now - mailbox.settings.tombstone_ms, envelopes.c.state != STORED)
        .order_by(envelopes.c.created_at)
        .limit(BATCH)
    ).all()
    for inbox_id, seqs in _by_inbox(old):
        _lock(mailbox, connection, inbox_id)
        statement = delete(envelopes).where(envelopes.c.inbox_id == inbox_id, envelopes.c.seq.in_(seqs))
        gone = connection.execute(statement.returning(envelopes.c.seq, envelopes.c.state)).all()
        _forget(mailbox, connection, inbox_id, [row.seq for row in gone if row.state == EXPIRED])
    return len(old)


def _by_inbox(rows: Sequence[Any]) -> list[tuple[int, list[int]]]:
    """Group (inbox, seq), in the order in which everybody locks inboxes."""
    grouped: defaultdict[int, list[int]] = defaultdict(list)
    for inbox_id, seq in rows:
        grouped[inbox_id].append(seq)
    return sorted(grouped.items())


def _expire_inbox(mailbox: Mailbox, connection: Connection, inbox_id: int, due: list[int]) -> None:
    _lock(mailbox, connection, inbox_id)
    envelopes, inboxes = mailbox.tables.envelopes, mailbox.tables.inboxes
    changed = connection.execute(
        update(envelopes)
        .where(envelopes.c.inbox_id == inbox_id, envelopes.c.seq.in_(due), envelopes.c.state == STORED)
        .values(state=EXPIRED, body=None)
        .returning(envelopes.c.sender_id, envelopes.c.size)
    ).all()
    mailbox.release(connection, inbox_id, changed)
    dropped = connection.scalar(
        update(inboxes)
        .where(inboxes.c.id == inbox_id)
        .values(dropped=inboxes.c.dropped + len(changed))
        .returning(inboxes.c.dropped)
    )
    if dropped is not None and dropped > mailbox.settings.max_dropped:
        _purge_oldest(mailbox, connection, inbox_id, dropped - mailbox.settings.max_dropped)


def _purge_oldest(mailbox: Mailbox, connection: Connection, inbox_id: int, excess: int) -> None:
    """Stop delivering the oldest notices. The rows stay as tombstones, so a retried send is still recognised."""
    envelopes = mailbox.tables.envelopes
    oldest = connection.scalars(
        select(envelopes.c.seq)
        .where(envelopes.c.inbox_id == inbox_id, envelopes.c.state == EXPIRED)
        .order_by(envelopes.c.seq)
        .limit(excess)
    ).all()
    connection.execute(
        update(envelopes).where(envelopes.c.inbox_id == inbox_id, envelopes.c.seq.in_(oldest)).values(state=ACKED)
    )
    _forget(mailbox, connection, inbox_id, list(oldest))


def _forget(mailbox: Mailbox, connection: Connection, inbox_id: int, seqs: list[int]) -> None:
    """Record that these rows went without having been delivered."""
    if not seqs:
        return
    inboxes = mailbox.tables.inboxes
    through, known = max(seqs), inboxes.c.dropped_through
    connection.execute(
        update(inboxes)
        .where(inboxes.c.id == inbox_id)
        .values(
            dropped=inboxes.c.dropped - len(seqs),
            dropped_through=case((known < through, through), else_=known),
        )
    )


def _lock(mailbox: Mailbox, connection: Connection, inbox_id: int) -> None:
    inboxes = mailbox.tables.inboxes
    connection.execute(select(inboxes.c.id).where(inboxes.c.id == inbox_id).with_for_update())
