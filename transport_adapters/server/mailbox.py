"""The mailbox: opaque envelopes per device until the device acked them (protocol.md section 12).

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

from sqlalchemy import Connection, Row, and_, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import DeviceAddress, UserId
from transport_adapters.base import SeqRange
from transport_adapters.server.ports import Ok, SendCheck, StaleList, Unavailable
from transport_adapters.server.settings import DEFAULT_MAILBOX, MailboxSettings
from transport_adapters.server.tables import ACKED, EXPIRED, STORED, MailboxTables

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
    dropped_through: int


@final
class Mailbox:
    """All inboxes of one database."""

    def __init__(self, tables: MailboxTables, settings: MailboxSettings = DEFAULT_MAILBOX) -> None:
        self.tables = tables
        self.settings = settings

    def create_inbox(self, connection: Connection, address: DeviceAddress, now: int) -> None:
        """Make the device's inbox, inside the transaction that registers the device. Idempotent.

        The first epoch is the time: if the row is ever lost and made anew, the number differs from what clients know.
        """
        values = {"user_id": address.user_id, "device_id": address.device_id.raw, "epoch": now, "created_at": now}
        statement = _insert(connection, self.tables.inboxes).values(values).on_conflict_do_nothing()
        connection.execute(statement)

    def lock(self, connection: Connection, addresses: Collection[DeviceAddress]) -> None:
        """Lock several inboxes in one order for all, so that two transactions never wait for each other.

        SQLite has one writer and needs none of this.
        """
        if len(addresses) < 2 or connection.dialect.name == "sqlite":
            return
        inboxes = self.tables.inboxes.c
        named = or_(*(and_(*_is(inboxes, each)) for each in addresses))
        connection.execute(select(inboxes.id).where(named).order_by(inboxes.id).with_for_update()).all()

    def append(self, connection: Connection, posted: Posted, check: Callable[[], SendCheck], now: int) -> Appended:
        """Store one envelope, unless it is stored already, the check refuses it, or there is no room.

        A retried send gets the first result, even if lists or quota have changed since.
        """
        envelope = posted.envelope
        inbox = self._inbox(connection, envelope.recipient)
        if inbox is None:
            verdict = check()
            return Unavailable() if isinstance(verdict, Ok) else verdict
        sender_id, known_seq = self._known(connection, inbox.id, envelope)
        if known_seq is not None:
            self._record_counter(connection, envelope.sender, posted.counter)
            return Stored(known_seq, duplicate=True)
        verdict = check()
        if not isinstance(verdict, Ok):
            return verdict
        full = self._full(connection, inbox, envelope.sender.user_id, len(posted.encoded))
        if full is not None:
            return full
        seq = self._insert(connection, inbox, sender_id, posted, now)
        self._record_counter(connection, envelope.sender, posted.counter)
        return Stored(seq, duplicate=False)

    def hello(
        self, connection: Connection, address: DeviceAddress, epoch: int, watermark: int, now: int
    ) -> InboxState | None:
        """State the inbox's position; None if the device has no inbox.

        A client that has committed more than the inbox ever held knows a future that was lost (the database was
        restored): the inbox gets a new epoch, stored rows keep their numbers, the client starts at 0.
        """
        inbox = self._inbox(connection, address)
        if inbox is None:
            return None
        current: int = inbox.epoch
        if epoch == current and watermark > inbox.head_seq:
            current = max(now, current + 1)
            inboxes = self.tables.inboxes
            connection.execute(update(inboxes).where(inboxes.c.id == inbox.id).values(epoch=current))
        counters = self.tables.counters.c
        counter = connection.scalar(select(counters.counter).where(*_is(counters, address)))
        return InboxState(
            inbox.id, current, inbox.head_seq, counter or 0, inbox.acked_epoch, inbox.acked_seq, inbox.dropped_through
        )

    def ack(self, connection: Connection, inbox_id: int, epoch: int, ranges: Sequence[SeqRange]) -> bool:
        """Turn the rows of the ranges (ascending, disjoint) into tombstones.

        Return False, and delete nothing, if the epoch is another or a number above the head is named.
        """
        inboxes = self.tables.inboxes
        inbox = connection.execute(select(inboxes).where(inboxes.c.id == inbox_id).with_for_update()).one_or_none()
        if inbox is None or inbox.epoch != epoch or ranges[-1].last > inbox.head_seq:
            return False
        rows = self._unacked(connection, inbox_id, ranges)
        self._set_state(connection, inbox_id, [row.seq for row in rows], ACKED)
        self.release(connection, inbox_id, [row for row in rows if row.state == STORED])
        before = inbox.acked_seq if inbox.acked_epoch == epoch else 0
        dropped = sum(row.state == EXPIRED for row in rows)
        connection.execute(
            update(inboxes)
            .where(inboxes.c.id == inbox_id)
            .values(acked_epoch=epoch, acked_seq=max(before, ranges[-1].last), dropped=inboxes.c.dropped - dropped)
        )
        return True

    def release(self, connection: Connection, inbox_id: int, rows: Sequence[Any]) -> None:
        """Give back the quota of rows (sender_id, size) whose bodies go. The caller holds the inbox's lock."""
        if not rows:
            return
        inboxes, senders = self.tables.inboxes, self.tables.senders
        size = sum(row.size for row in rows)
        freed = {"envelopes": inboxes.c.envelopes - len(rows), "bytes": inboxes.c.bytes - size}
        connection.execute(update(inboxes).where(inboxes.c.id == inbox_id).values(freed))
        for sender_id in {row.sender_id for row in rows}:
            sizes = [row.size for row in rows if row.sender_id == sender_id]
            freed = {"envelopes": senders.c.envelopes - len(sizes), "bytes": senders.c.bytes - sum(sizes)}
            connection.execute(update(senders).where(senders.c.id == sender_id).values(freed))

    def _inbox(self, connection: Connection, address: DeviceAddress) -> Row[Any] | None:
        """Read and lock an inbox."""
        inboxes = self.tables.inboxes
        return connection.execute(select(inboxes).where(*_is(inboxes.c, address)).with_for_update()).one_or_none()

    def _known(self, connection: Connection, inbox_id: int, envelope: Envelope) -> tuple[int | None, int | None]:
        """Find the sender's row in this inbox, and the seq of this envelope if it was stored before."""
        senders, envelopes = self.tables.senders, self.tables.envelopes
        same = and_(envelopes.c.sender_id == senders.c.id, envelopes.c.envelope_id == envelope.envelope_id.raw)
        statement = (
            select(senders.c.id, envelopes.c.seq)
            .outerjoin(envelopes, same)
            .where(senders.c.inbox_id == inbox_id, *_is(senders.c, envelope.sender))
        )
        row = connection.execute(statement).one_or_none()
        return (None, None) if row is None else (row.id, row.seq)

    def _full(self, connection: Connection, inbox: Row[Any], user_id: UserId, size: int) -> Full | None:
        settings = self.settings
        if inbox.envelopes >= settings.max_envelopes or inbox.bytes + size > settings.max_bytes:
            return Full.INBOX
        half_envelopes, half_bytes = settings.max_envelopes // 2, settings.max_bytes // 2
        if inbox.envelopes < half_envelopes and inbox.bytes + size <= half_bytes:
            return None  # nobody can hold half of it
        senders = self.tables.senders.c
        statement = select(func.coalesce(func.sum(senders.envelopes), 0), func.coalesce(func.sum(senders.bytes), 0))
        count, total = connection.execute(
            statement.where(senders.inbox_id == inbox.id, senders.user_id == user_id)
        ).one()
        return Full.SENDER if count >= half_envelopes or total + size > half_bytes else None

    def _insert(self, connection: Connection, inbox: Row[Any], sender_id: int | None, posted: Posted, now: int) -> int:
        envelope, size = posted.envelope, len(posted.encoded)
        seq: int = inbox.head_seq + 1
        inboxes, senders = self.tables.inboxes, self.tables.senders
        held = {"head_seq": seq, "envelopes": inboxes.c.envelopes + 1, "bytes": inboxes.c.bytes + size}
        connection.execute(update(inboxes).where(inboxes.c.id == inbox.id).values(held))
        if sender_id is None:
            first = {"inbox_id": inbox.id, **_named(envelope.sender), "ordinal": 1, "envelopes": 1, "bytes": size}
            sender_id, ordinal = connection.execute(
                insert(senders).values(first).returning(senders.c.id, senders.c.ordinal)
            ).one()
        else:
            more = {name: senders.c[name] + step for name, step in (("ordinal", 1), ("envelopes", 1), ("bytes", size))}
            statement = update(senders).where(senders.c.id == sender_id).values(more)
            ordinal = connection.scalar(statement.returning(senders.c.ordinal))
        ttl = envelope.ttl if envelope.lane != Lane.CONTROL else min(envelope.ttl, self.settings.control_ttl_seconds)
        connection.execute(
            insert(self.tables.envelopes).values(
                inbox_id=inbox.id,
                seq=seq,
                sender_id=sender_id,
                envelope_id=envelope.envelope_id.raw,
                ordinal=ordinal,
                lane=int(envelope.lane),
                state=STORED,
                size=size,
                created_at=now,
                expires_at=now + 1000 * ttl,
                body=posted.encoded,
            )
        )
        return seq

    def _record_counter(self, connection: Connection, sender: DeviceAddress, counter: int) -> None:
        """Keep the highest n. A lower one is no fault: retries come late."""
        counters = self.tables.counters
        statement = _insert(connection, counters).values(**_named(sender), counter=counter)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[counters.c.user_id, counters.c.device_id],
                set_={"counter": statement.excluded.counter},
                where=counters.c.counter < statement.excluded.counter,
            )
        )

    def _unacked(self, connection: Connection, inbox_id: int, ranges: Sequence[SeqRange]) -> list[Any]:
        envelopes = self.tables.envelopes.c
        rows = connection.execute(
            select(envelopes.seq, envelopes.sender_id, envelopes.size, envelopes.state)
            .where(envelopes.inbox_id == inbox_id, envelopes.state < ACKED)
            .where(envelopes.seq.between(ranges[0].first, ranges[-1].last))
            .order_by(envelopes.seq)
        )
        found: list[Any] = []
        remaining = iter(ranges)
        current = next(remaining)
        for row in rows:
            while row.seq > current.last:
                current = next(remaining)
            if row.seq >= current.first:
                found.append(row)
        return found

    def _set_state(self, connection: Connection, inbox_id: int, seqs: Sequence[int], state: int) -> None:
        envelopes = self.tables.envelopes
        for at in range(0, len(seqs), _CHUNK):
            chunk = envelopes.c.seq.in_(seqs[at : at + _CHUNK])
            statement = update(envelopes).where(envelopes.c.inbox_id == inbox_id, chunk)
            connection.execute(statement.values(state=state, body=None))


def _insert(connection: Connection, table: Any) -> Any:
    """An INSERT that knows ON CONFLICT; the two dialects spell it alike, SQLAlchemy keeps them apart."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def _named(address: DeviceAddress) -> dict[str, Any]:
    return {"user_id": address.user_id, "device_id": address.device_id.raw}


def _is(columns: Any, address: DeviceAddress) -> tuple[Any, Any]:
    return columns.user_id == address.user_id, columns.device_id == address.device_id.raw
