"""What waits for a device, read in the order in which it is sent.

Owns: what a schedule (lanes.py) is given to choose from, and the bodies of what it chose.
Does not know about: the rules of the order, credit and connections.
"""

from typing import Any, NamedTuple

from sqlalchemy import Connection

from e2ee.wire.identifiers import DeviceAddress, DeviceId, EnvelopeId, UserId
from transport_adapters.server.lanes import Budget, Schedule, Waiting
from transport_adapters.server.statements import Statements


class Pending(NamedTuple):
    """A row to deliver: the encoded envelope, or None for one that expired."""

    seq: int
    sender: DeviceAddress
    envelope_id: EnvelopeId
    envelope: bytes | None
    stored_at: int
    """Unix milliseconds."""


class Reader(NamedTuple):
    """Whose rows, as of when. A row past its time to live is read as expired, whether or not it was marked yet."""

    sql: Statements
    inbox_id: int
    now: int


def read_pending(connection: Connection, reader: Reader, schedule: Schedule, budget: Budget) -> list[Pending]:
    """Read the next rows of a schedule, as far as the budget goes. Only their bodies come into memory.

    Empty only if nothing is left that fits: rows that were acked since they were chosen, on an earlier connection's
    behalf, are passed over.
    """
    while chosen := _choose(connection, reader, schedule, budget):
        found = _bodies(connection, reader, chosen)
        if found:
            return [found[seq] for seq in chosen if seq in found]
    return []


def _choose(connection: Connection, reader: Reader, schedule: Schedule, budget: Budget) -> list[int]:
    rows = _waiting(connection, reader, schedule)
    if rows:
        may_be_more = schedule.add(rows)
        schedule.set_unread_floors(_floors(connection, reader, schedule) if may_be_more else {})
    chosen = schedule.choose(budget)
    if not chosen and schedule.is_blocked:
        schedule.set_unread_floors(_floors(connection, reader, schedule))
        chosen = schedule.choose(budget)
    return [row.seq for row in chosen]


def _bodies(connection: Connection, reader: Reader, seqs: list[int]) -> dict[int, Pending]:
    rows = connection.execute(reader.sql.bodies, {**_of(reader), "of_now": reader.now, "of_seqs": seqs})
    return {
        seq: Pending(seq, _address(user_id, device_id), EnvelopeId(envelope_id), body if alive else None, at)
        for seq, user_id, device_id, envelope_id, body, alive, at in rows
    }


def _waiting(connection: Connection, reader: Reader, schedule: Schedule) -> list[Waiting]:
    parameters = {**_of(reader), "of_now": reader.now}
    for lane, (after, limit) in schedule.wanted().items():
        parameters |= {f"of_after_{lane}": after, f"of_limit_{lane}": limit}
    return [
        Waiting(seq, lane, sender_id, ordinal, size if alive else 0)
        for seq, lane, sender_id, ordinal, size, alive in connection.execute(reader.sql.waiting, parameters)
    ]


def _floors(connection: Connection, reader: Reader, schedule: Schedule) -> dict[int, int]:
    """The lowest ordinal of each sender among the rows that were not read yet."""
    after = {f"of_after_{lane}": seq for lane, (seq, _) in schedule.wanted().items()}
    return {row[0]: row[1] for row in connection.execute(reader.sql.floors, {**_of(reader), **after})}


def _of(reader: Reader) -> dict[str, Any]:
    return {"of_inbox": reader.inbox_id}


def _address(user_id: str, device_id: bytes) -> DeviceAddress:
    return DeviceAddress(UserId(user_id), DeviceId(device_id))
