"""The mailbox's statements, built once: building one costs several times as much as running it.

Owns: SQL.
Does not know about: what the mailbox decides. Parameters of a condition begin with `of_`.
"""

from typing import Any, Final, final

from sqlalchemy import (
    BindParameter,
    Select,
    and_,
    bindparam,
    func,
    insert,
    literal_column,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from e2ee.wire.envelope import Lane
from e2ee.wire.identifiers import DeviceAddress
from transport_adapters.server.tables import ACKED, STORED, MailboxTables

RANGES_AT_ONCE: Final = 32
"""Ranges of an ack that one statement looks up."""
LANES: Final = tuple(int(lane) for lane in Lane)


@final
class Statements:
    """What the mailbox and its readers execute."""

    def __init__(self, tables: MailboxTables) -> None:
        self.tables = tables
        self.create_inbox = {name: self._create_inbox(kind) for name, kind in _DIALECTS.items()}
        self.raise_counter = {name: self._raise_counter(kind) for name, kind in _DIALECTS.items()}
        self._for_inboxes()
        self._for_senders()
        self._for_envelopes()
        self._for_delivery()

    def _for_inboxes(self) -> None:
        inboxes = self.tables.inboxes
        its = inboxes.c
        of_id = its.id == bindparam("of_inbox")
        count, size = _number("count"), _number("size")
        self.inbox = select(inboxes).where(*_of_device(its)).with_for_update()
        self.inbox_id = select(its.id).where(*_of_device(its))
        self.inbox_by_id = select(inboxes).where(of_id).with_for_update()
        self.new_epoch = update(inboxes).where(of_id).values(epoch=bindparam("new_epoch"))
        self.fill_inbox = (
            update(inboxes)
            .where(of_id)
            .values(head_seq=bindparam("seq"), envelopes=its.envelopes + count, bytes=its.bytes + size)
        )
        self.empty_inbox = update(inboxes).where(of_id).values(envelopes=its.envelopes - count, bytes=its.bytes - size)
        self.acked = (
            update(inboxes)
            .where(of_id)
            .values(
                acked_epoch=bindparam("new_epoch"), acked_seq=bindparam("seq"), dropped=its.dropped - bindparam("gone")
            )
        )
        counters = self.tables.counters.c
        self.counter = select(counters.counter).where(*_of_device(counters))

    def _for_senders(self) -> None:
        senders, envelopes = self.tables.senders, self.tables.envelopes
        its, of_id = senders.c, senders.c.id == bindparam("of_sender")
        count, size = _number("count"), _number("size")
        in_inbox = its.inbox_id == bindparam("of_inbox")
        self.sender = select(its.id, its.ordinal).where(in_inbox, *_of_device(its))
        those = envelopes.c.envelope_id.in_(bindparam("of_envelopes", expanding=True))
        self.known = select(envelopes.c.envelope_id, envelopes.c.seq).where(
            envelopes.c.sender_id == bindparam("of_sender"), those
        )
        totals = func.coalesce(func.sum(its.envelopes), 0), func.coalesce(func.sum(its.bytes), 0)
        self.held_by_user = select(*totals).where(in_inbox, its.user_id == bindparam("of_user"))
        self.first_of_sender = insert(senders).returning(its.id)
        self.fill_sender = (
            update(senders)
            .where(of_id)
            .values(ordinal=bindparam("last_ordinal"), envelopes=its.envelopes + count, bytes=its.bytes + size)
        )
        self.empty_sender = update(senders).where(of_id).values(envelopes=its.envelopes - count, bytes=its.bytes - size)

    def _for_envelopes(self) -> None:
        envelopes = self.tables.envelopes
        its = envelopes.c
        in_inbox = its.inbox_id == bindparam("of_inbox")
        self.insert_envelope = insert(envelopes)
        # By lane, so that the index of what is not acked serves: tombstones outnumber it, and are not looked at.
        unacked = and_(in_inbox, its.state < literal_column(str(ACKED)))

        def lowest_of(lane: int) -> Select[Any]:
            rows = select(its.seq).where(unacked, its.lane == literal_column(str(lane)))
            return select(rows.order_by(its.seq).limit(1).subquery())

        every_lane = its.lane.in_([literal_column(str(lane)) for lane in LANES])

        def within(at: int) -> Select[Any]:
            span = its.seq.between(bindparam(f"of_first_{at}"), bindparam(f"of_last_{at}"))
            return select(its.seq, its.sender_id, its.size, its.state).where(unacked, every_lane, span)

        self.unacked = {number: union_all(*map(within, range(number))) for number in (1, RANGES_AT_ONCE)}
        self.lowest_unacked = select(func.min(union_all(*(lowest_of(lane) for lane in LANES)).subquery().c.seq))
        chunk = its.seq.in_(bindparam("of_seqs", expanding=True))
        self.entomb = update(envelopes).where(in_inbox, chunk).values(state=ACKED, body=None)

    def _for_delivery(self) -> None:
        senders, envelopes = self.tables.senders, self.tables.envelopes
        its = envelopes.c
        pending = and_(its.inbox_id == bindparam("of_inbox"), its.state < ACKED)
        alive = and_(its.state == STORED, its.expires_at > bindparam("of_now"))

        def of_lane(lane: int) -> Select[Any]:
            rows = (
                select(its.seq, its.lane, its.sender_id, its.ordinal, its.size, alive)
                .where(pending, its.lane == literal_column(str(lane)), its.seq > bindparam(f"of_after_{lane}"))
                .order_by(its.seq)
                .limit(bindparam(f"of_limit_{lane}"))
            )
            return select(rows.subquery())

        self.waiting = union_all(*(of_lane(lane) for lane in LANES))
        unread = or_(*(and_(its.lane == lane, its.seq > bindparam(f"of_after_{lane}")) for lane in LANES))
        self.floors = select(its.sender_id, func.min(its.ordinal)).where(pending, unread).group_by(its.sender_id)
        self.bodies = (
            select(its.seq, senders.c.user_id, senders.c.device_id, its.envelope_id, its.body, alive, its.created_at)
            .join(senders, senders.c.id == its.sender_id)
            .where(pending, its.seq.in_(bindparam("of_seqs", expanding=True)))
        )

    def _create_inbox(self, kind: Any) -> Any:
        return kind.insert(self.tables.inboxes).on_conflict_do_nothing()

    def _raise_counter(self, kind: Any) -> Any:
        """Keep the highest n. A lower one is no fault: retries come late."""
        its = self.tables.counters.c
        statement = kind.insert(self.tables.counters)
        new = statement.excluded.counter
        return statement.on_conflict_do_update(
            index_elements=[its.user_id, its.device_id], set_={"counter": new}, where=its.counter < new
        )


# The two spell ON CONFLICT alike; SQLAlchemy keeps them apart.
_DIALECTS: Final[dict[str, Any]] = {"sqlite": sqlite, "postgresql": postgresql}


def named(address: DeviceAddress) -> dict[str, Any]:
    """An address as columns of a new row."""
    return {"user_id": address.user_id, "device_id": address.device_id.raw}


def of_device(address: DeviceAddress) -> dict[str, Any]:
    """An address as parameters of a condition."""
    return {"of_user": address.user_id, "of_device": address.device_id.raw}


def _of_device(columns: Any) -> tuple[Any, Any]:
    return columns.user_id == bindparam("of_user"), columns.device_id == bindparam("of_device")


def _number(name: str) -> BindParameter[int]:
    return bindparam(name)
