"""What waits for a device, read in the order in which it is sent.

Owns: the statements behind a schedule (lanes.py).
Does not know about: the rules of the order, credit and connections.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, and_, func, or_, select, union_all

from e2ee.wire.identifiers import DeviceAddress, DeviceId, EnvelopeId, UserId
from transport_adapters.server.lanes import Budget, Schedule, Waiting
from transport_adapters.server.tables import ACKED, STORED, MailboxTables


class Pending(NamedTuple):
    """A row to deliver: the encoded envelope, or None for one that expired."""

    seq: int
    sender: DeviceAddress
    envelope_id: EnvelopeId
    envelope: bytes | None


class Reader(NamedTuple):
    """Whose rows, as of when. A row past its time to live is read as expired, whether or not it was marked yet."""

    tables: MailboxTables
    inbox_id: int
    now: int


def read_pending(connection: Connection, reader: Reader, schedule: Schedule, budget: Budget) -> list[Pending]:
    """Read the next rows of a schedule, as far as the budget goes. Only their bodies come into memory."""
    wanted = schedule.wanted()
    more = schedule.add(_waiting(connection, reader, wanted) if wanted else ())
    schedule.set_unread_floors(_floors(connection, reader, schedule.after()) if more else {})
    chosen = [row.seq for row in schedule.choose(budget)]
    if not chosen:
        return []
    envelopes, senders = reader.tables.envelopes.c, reader.tables.senders.c
    statement = (
        select(envelopes.seq, senders.user_id, senders.device_id, envelopes.envelope_id, envelopes.body, _alive(reader))
        .join(reader.tables.senders, senders.id == envelopes.sender_id)
        .where(envelopes.inbox_id == reader.inbox_id, envelopes.state < ACKED, envelopes.seq.in_(chosen))
    )
    found = {
        seq: Pending(seq, _address(user_id, device_id), EnvelopeId(envelope_id), body if alive else None)
        for seq, user_id, device_id, envelope_id, body, alive in connection.execute(statement)
    }
    # What is missing was acked meanwhile, on an earlier connection's behalf.
    return [found[seq] for seq in chosen if seq in found]


def _waiting(connection: Connection, reader: Reader, wanted: Mapping[int, tuple[int, int]]) -> list[Waiting]:
    envelopes = reader.tables.envelopes.c

    def of_lane(lane: int, after: int, limit: int) -> Select[Any]:
        columns = (envelopes.seq, envelopes.lane, envelopes.sender_id, envelopes.ordinal, envelopes.size)
        rows = (
            select(*columns, _alive(reader))
            .where(envelopes.inbox_id == reader.inbox_id, envelopes.lane == lane, envelopes.state < ACKED)
            .where(envelopes.seq > after)
            .order_by(envelopes.seq)
            .limit(limit)
        )
        return select(rows.subquery())

    statement = union_all(*(of_lane(lane, after, limit) for lane, (after, limit) in wanted.items()))
    return [
        Waiting(seq, lane, sender_id, ordinal, size if alive else 0)
        for seq, lane, sender_id, ordinal, size, alive in connection.execute(statement)
    ]


def _floors(connection: Connection, reader: Reader, after: Mapping[int, int]) -> dict[int, int]:
    """The lowest ordinal of each sender among the rows that were not read yet."""
    envelopes = reader.tables.envelopes.c
    unread = or_(*(and_(envelopes.lane == lane, envelopes.seq > seq) for lane, seq in after.items()))
    statement = (
        select(envelopes.sender_id, func.min(envelopes.ordinal))
        .where(envelopes.inbox_id == reader.inbox_id, envelopes.state < ACKED, unread)
        .group_by(envelopes.sender_id)
    )
    return {row[0]: row[1] for row in connection.execute(statement)}


def _alive(reader: Reader) -> Any:
    envelopes = reader.tables.envelopes.c
    return and_(envelopes.state == STORED, envelopes.expires_at > reader.now)


def _address(user_id: str, device_id: bytes) -> DeviceAddress:
    return DeviceAddress(UserId(user_id), DeviceId(device_id))
