"""The mailbox: opaque envelopes per device until the device acked them.

Owns: sequence numbers, deduplication, quotas, acks, epochs.
Does not know about: transports, tokens, device lists (who may send is asked inside the inserting transaction); in
which order rows are delivered (pending.py); what time does to them (retention.py).

Synchronous functions on a connection; the caller owns the transaction. A sequence number is taken from the inbox's own
counter under its row lock, so a reader never sees n + 1 before n. Locks are taken in the order inbox, counter.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple, final

from sqlalchemy import Connection, Row, and_, or_, select

from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import DeviceAddress, UserId
from transport_adapters.base import SeqRange
from transport_adapters.server.ports import Ok, SendCheck, StaleList, Unavailable
from transport_adapters.server.settings import DEFAULT_MAILBOX, MailboxSettings
from transport_adapters.server.statements import RANGES_AT_ONCE, Statements, named, of_device
from transport_adapters.server.tables import EXPIRED, STORED, MailboxTables

_NOTHING: Final = SeqRange(0, 0)
_CHUNK: Final = 500
"""Sequence numbers in one statement, below every database's limit of parameters."""


@final
@dataclass(frozen=True, slots=True)
class Posted:
    """An envelope as it came, decoded, with its sender's counter n."""

    envelope: Envelope
    encoded: bytes
    counter: int


class Stored(NamedTuple):
    """The envelope is in the mailbox, under this sequence number; `duplicate` if it was there before."""

    seq: int
    duplicate: bool


@final
class Full(Enum):
    """The inbox refuses: it is full, or this sending user has its half of it."""

    INBOX = "the inbox is full"
    SENDER = "the sender has filled half of the inbox"


Appended = Stored | Full | StaleList | Unavailable


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


class _Place(NamedTuple):
    """Where an envelope goes: the inbox, its sender's row there, its number among the sender's."""

    inbox_id: int
    sender_id: int
    ordinal: int


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

    def lock(self, connection: Connection, addresses: Collection[DeviceAddress]) -> None:
        """Lock several inboxes in one order for all, so that two transactions never wait for each other.

        SQLite has one writer and needs none of this.
        """
        if len(addresses) < 2 or connection.dialect.name == "sqlite":
            return
        its = self.tables.inboxes.c
        chosen = or_(*(and_(its.user_id == each.user_id, its.device_id == each.device_id.raw) for each in addresses))
        connection.execute(select(its.id).where(chosen).order_by(its.id).with_for_update()).all()

    def append(self, connection: Connection, posted: Posted, check: Callable[[], SendCheck], now: int) -> Appended:
        """Store one envelope, unless it is stored already, the check refuses it, or there is no room.

        A retried send gets the first result, even if lists or quota have changed since.
        """
        envelope = posted.envelope
        inbox = connection.execute(self.sql.inbox, of_device(envelope.recipient)).one_or_none()
        if inbox is None:
            verdict = check()
            return Unavailable() if isinstance(verdict, Ok) else verdict
        sender_id, known_seq = self._known(connection, inbox.id, envelope)
        if known_seq is not None:
            self._record_counter(connection, posted)
            return Stored(known_seq, duplicate=True)
        verdict = check()
        if not isinstance(verdict, Ok):
            return verdict
        full = self._full(connection, inbox, envelope.sender.user_id, len(posted.encoded))
        if full is not None:
            return full
        seq: int = inbox.head_seq + 1
        filled = {"of_inbox": inbox.id, "seq": seq, "size": len(posted.encoded)}
        connection.execute(self.sql.fill_inbox, filled)
        self._insert(connection, self._sender(connection, inbox.id, sender_id, posted), seq, posted, now)
        self._record_counter(connection, posted)
        return Stored(seq, duplicate=False)

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

    def _settled_through(self, connection: Connection, inbox: Row[Any]) -> int:
        """Return the seq up to which nothing is left to deliver."""
        lowest: int | None = connection.scalar(self.sql.lowest_unacked, {"of_inbox": inbox.id})
        head: int = inbox.head_seq
        return head if lowest is None else lowest - 1

    def ack(self, connection: Connection, inbox_id: int, epoch: int, ranges: Sequence[SeqRange]) -> bool:
        """Turn the rows of the ranges (ascending, disjoint) into tombstones.

        Return False, and delete nothing, if the epoch is another or a number above the head is named.
        """
        inbox = connection.execute(self.sql.inbox_by_id, {"of_inbox": inbox_id}).one_or_none()
        if inbox is None or inbox.epoch != epoch or ranges[-1].last > inbox.head_seq:
            return False
        rows = self._unacked(connection, inbox_id, ranges)
        for at in range(0, len(rows), _CHUNK):
            chunk = [row.seq for row in rows[at : at + _CHUNK]]
            connection.execute(self.sql.entomb, {"of_inbox": inbox_id, "of_seqs": chunk})
        self.release(connection, inbox_id, [row for row in rows if row.state == STORED])
        before = inbox.acked_seq if inbox.acked_epoch == epoch else 0
        gone = sum(row.state == EXPIRED for row in rows)
        position = {"of_inbox": inbox_id, "new_epoch": epoch, "seq": max(before, ranges[-1].last), "gone": gone}
        connection.execute(self.sql.acked, position)
        return True

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

    def _known(self, connection: Connection, inbox_id: int, envelope: Envelope) -> tuple[int | None, int | None]:
        """Find the sender's row in this inbox, and the seq of this envelope if it was stored before."""
        named_so = {"of_inbox": inbox_id, "of_envelope": envelope.envelope_id.raw, **of_device(envelope.sender)}
        row = connection.execute(self.sql.known, named_so).one_or_none()
        return (None, None) if row is None else (row.id, row.seq)

    def _full(self, connection: Connection, inbox: Row[Any], user_id: UserId, size: int) -> Full | None:
        settings = self.settings
        if inbox.envelopes >= settings.max_envelopes or inbox.bytes + size > settings.max_bytes:
            return Full.INBOX
        half_envelopes, half_bytes = settings.max_envelopes // 2, settings.max_bytes // 2
        if inbox.envelopes < half_envelopes and inbox.bytes + size <= half_bytes:
            return None  # nobody can hold half of it
        held = connection.execute(self.sql.held_by_user, {"of_inbox": inbox.id, "of_user": user_id})
        count, total = held.one()
        return Full.SENDER if count >= half_envelopes or total + size > half_bytes else None

    def _sender(self, connection: Connection, inbox_id: int, sender_id: int | None, posted: Posted) -> _Place:
        """Count the envelope for its sender."""
        size = len(posted.encoded)
        if sender_id is not None:
            row = connection.execute(self.sql.next_of_sender, {"of_sender": sender_id, "size": size}).one()
        else:
            first = {"inbox_id": inbox_id, **named(posted.envelope.sender), "ordinal": 1, "envelopes": 1, "bytes": size}
            row = connection.execute(self.sql.first_of_sender, first).one()
        return _Place(inbox_id, row.id, row.ordinal)

    def _insert(self, connection: Connection, place: _Place, seq: int, posted: Posted, now: int) -> None:
        envelope = posted.envelope
        ttl = envelope.ttl if envelope.lane != Lane.CONTROL else min(envelope.ttl, self.settings.control_ttl_seconds)
        row = {
            **place._asdict(),
            "seq": seq,
            "envelope_id": envelope.envelope_id.raw,
            "lane": int(envelope.lane),
            "state": STORED,
            "size": len(posted.encoded),
            "created_at": now,
            "expires_at": now + 1000 * ttl,
            "body": posted.encoded,
        }
        connection.execute(self.sql.insert_envelope, row)

    def _record_counter(self, connection: Connection, posted: Posted) -> None:
        statement = self.sql.raise_counter[connection.dialect.name]
        connection.execute(statement, {**named(posted.envelope.sender), "counter": posted.counter})

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
