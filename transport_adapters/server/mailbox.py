"""The mailbox: opaque envelopes per device until the device acked them.

Owns: sequence numbers, deduplication, quotas, acks, epochs.
Does not know about: transports, tokens, device lists (who may send is asked inside the inserting transaction); in
which order rows are delivered (pending.py); what time does to them (retention.py).

Synchronous functions on a connection; the caller owns the transaction. A sequence number is taken from the inbox's own
counter under its row lock, so a reader never sees n + 1 before n. Locks are taken in the order inbox, counter.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple, final

from sqlalchemy import Connection, Row, and_, case, delete, or_, select, update

from e2ee.wire.identifiers import DeviceAddress
from transport_adapters.base import SeqRange
from transport_adapters.server.posting import Posted, Posting
from transport_adapters.server.settings import DEFAULT_MAILBOX, MailboxSettings
from transport_adapters.server.statements import RANGES_AT_ONCE, Statements, named, of_device
from transport_adapters.server.tables import EXPIRED, STORED, MailboxTables

_NOTHING: Final = SeqRange(0, 0)
_CHUNK: Final = 500
"""Sequence numbers in one statement, below every database's limit of parameters."""


class Position(NamedTuple):
    """What one ack names: an epoch, and ascending, disjoint ranges of it."""

    epoch: int
    ranges: Sequence[SeqRange]


class InboxState(NamedTuple):
    """What `hello` is answered with."""

    inbox_id: int
    epoch: int
    head_seq: int
    accepted_counter: int
    acked_epoch: int
    acked_seq: int
    settled_through: int
    dropped_through: int


@final
class Mailbox:
    """All inboxes of one database."""

    def __init__(self, tables: MailboxTables, settings: MailboxSettings = DEFAULT_MAILBOX) -> None:
        self.tables = tables
        self.settings = settings
        self.sql = Statements(tables)

    def create_inbox(self, connection: Connection, address: DeviceAddress, now: int) -> None:
        """Make the device's inbox, inside the transaction that registers the device. Idempotent.

        The first epoch is the time: if the row is ever lost and made anew, the number differs from what clients know.
        """
        statement = self.sql.create_inbox[connection.dialect.name]
        connection.execute(statement, {**named(address), "epoch": now, "created_at": now})

    def remove_inboxes(self, connection: Connection, addresses: Collection[DeviceAddress]) -> None:
        """Delete the inboxes of devices that leave, with all that waits in them, and their counters.

        Not their leases: the end of the connection takes those back, and says so.
        """
        self.lock(connection, addresses)
        for table in (self.tables.inboxes, self.tables.counters):
            its = table.c
            for each in addresses:
                mine = its.user_id == each.user_id, its.device_id == each.device_id.raw
                connection.execute(delete(table).where(*mine))

    def lock(self, connection: Connection, addresses: Collection[DeviceAddress]) -> None:
        """Lock several inboxes in one order for all, so that two transactions never wait for each other.

        SQLite has one writer and needs none of this.
        """
        if len(addresses) < 2 or connection.dialect.name == "sqlite":
            return
        its = self.tables.inboxes.c
        chosen = or_(*(and_(its.user_id == each.user_id, its.device_id == each.device_id.raw) for each in addresses))
        connection.execute(select(its.id).where(chosen).order_by(its.id).with_for_update()).all()

    def posting(self, connection: Connection, batch: Sequence[Posted]) -> Posting:
        """Begin to store what one device sends."""
        return Posting(self.sql, self.settings, connection, batch)

    def hello(
        self, connection: Connection, address: DeviceAddress, epoch: int, watermark: int, now: int
    ) -> InboxState | None:
        """State the inbox's position; None if the device has no inbox.

        A client that has committed more than the inbox ever held knows a future that was lost (the database was
        restored): the inbox gets a new epoch, stored rows keep their numbers, the client starts at 0.
        """
        inbox = connection.execute(self.sql.inbox, of_device(address)).one_or_none()
        if inbox is None:
            return None
        current: int = inbox.epoch
        if epoch == current and watermark > inbox.head_seq:
            current = max(now, current + 1)
            connection.execute(self.sql.new_epoch, {"of_inbox": inbox.id, "new_epoch": current})
        counter = connection.scalar(self.sql.counter, of_device(address))
        return InboxState(
            inbox_id=inbox.id,
            epoch=current,
            head_seq=inbox.head_seq,
            accepted_counter=counter or 0,
            acked_epoch=inbox.acked_epoch,
            acked_seq=inbox.acked_seq,
            settled_through=self._settled_through(connection, inbox),
            dropped_through=inbox.dropped_through,
        )

    def is_waiting(self, connection: Connection, address: DeviceAddress) -> bool:
        """Say whether something waits unacknowledged in a device's inbox."""
        inbox = connection.execute(self.sql.inbox_id, of_device(address)).one_or_none()
        return inbox is not None and connection.scalar(self.sql.lowest_unacked, {"of_inbox": inbox.id}) is not None

    def restart(self, connection: Connection, now: int) -> int:
        """Give every inbox a new epoch, after the database was restored from a backup; return how many there are.

        Stored rows keep their numbers. The new epoch is above every one that a client may know: those made after the
        backup were times, too.
        """
        its = self.tables.inboxes.c
        epoch = case((its.epoch < now, now), else_=its.epoch + 1)
        return connection.execute(update(self.tables.inboxes).values(epoch=epoch)).rowcount

    def _settled_through(self, connection: Connection, inbox: Row[Any]) -> int:
        """Return the seq up to which nothing is left to deliver."""
        lowest: int | None = connection.scalar(self.sql.lowest_unacked, {"of_inbox": inbox.id})
        head: int = inbox.head_seq
        return head if lowest is None else lowest - 1

    def ack(self, connection: Connection, inbox_id: int, acks: Sequence[Position]) -> list[bool]:
        """Turn the rows of one or more acks into tombstones.

        Of each, return False, and delete nothing, if its epoch is another or it names a number above the head.
        """
        inbox = connection.execute(self.sql.inbox_by_id, {"of_inbox": inbox_id}).one_or_none()
        if inbox is None:
            return [False] * len(acks)
        good = [epoch == inbox.epoch and ranges[-1].last <= inbox.head_seq for epoch, ranges in acks]
        accepted = _merged(each for (_, ranges), counts in zip(acks, good, strict=True) if counts for each in ranges)
        if accepted:
            self._entomb(connection, inbox, accepted)
        return good

    def _entomb(self, connection: Connection, inbox: Row[Any], ranges: Sequence[SeqRange]) -> None:
        rows = self._unacked(connection, inbox.id, ranges)
        for at in range(0, len(rows), _CHUNK):
            chunk = [row.seq for row in rows[at : at + _CHUNK]]
            connection.execute(self.sql.entomb, {"of_inbox": inbox.id, "of_seqs": chunk})
        self.release(connection, inbox.id, [row for row in rows if row.state == STORED])
        before = inbox.acked_seq if inbox.acked_epoch == inbox.epoch else 0
        gone = sum(row.state == EXPIRED for row in rows)
        position = {"of_inbox": inbox.id, "new_epoch": inbox.epoch, "seq": max(before, ranges[-1].last), "gone": gone}
        connection.execute(self.sql.acked, position)

    def release(self, connection: Connection, inbox_id: int, rows: Sequence[Any]) -> None:
        """Give back the quota of rows (sender_id, size) whose bodies go. The caller holds the inbox's lock."""
        if not rows:
            return
        freed = {"of_inbox": inbox_id, "count": len(rows), "size": sum(row.size for row in rows)}
        connection.execute(self.sql.empty_inbox, freed)
        for sender_id in {row.sender_id for row in rows}:
            sizes = [row.size for row in rows if row.sender_id == sender_id]
            freed = {"of_sender": sender_id, "count": len(sizes), "size": sum(sizes)}
            connection.execute(self.sql.empty_sender, freed)

    def _unacked(self, connection: Connection, inbox_id: int, ranges: Sequence[SeqRange]) -> list[Any]:
        """Find the rows of the ranges. Costs what they hold, not what lies between them."""
        found: list[Any] = []
        size = RANGES_AT_ONCE if len(ranges) > 1 else 1
        for at in range(0, len(ranges), size):
            chunk = ranges[at : at + size]
            bounds = {"of_inbox": inbox_id}
            for number in range(size):
                first, last = chunk[number] if number < len(chunk) else _NOTHING
                bounds |= {f"of_first_{number}": first, f"of_last_{number}": last}
            found += connection.execute(self.sql.unacked[size], bounds)
        return found


def _merged(ranges: Iterable[SeqRange]) -> list[SeqRange]:
    """Join ranges that touch or overlap, so that a client that acks one by one costs no more than another."""
    merged: list[SeqRange] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1].last + 1:
            merged[-1] = SeqRange(merged[-1].first, max(last, merged[-1].last))
        else:
            merged.append(SeqRange(first, last))
    return merged
