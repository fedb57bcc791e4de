"""The leases of devices that want to be seen, in the database.

Owns: every statement on `e2ee_presence`; how a user's devices add up to one state.
Does not know about: connections, when a lease is renewed (presence.py), who may see it (watching.py).

A row names the connection that wrote it last. Only that one renews or deletes it, so the late end of an old connection
changes nothing for a device that is back.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Table, bindparam, delete, func, select, text
from sqlalchemy.dialects import postgresql, sqlite

from e2ee.wire.identifiers import DeviceAddress, UserId
from transport_adapters.base import PresenceState

ROWS_AT_ONCE: Final = 5_000
"""Of one statement: databases bound its parameters."""

_NUMBERS: Final = {PresenceState.ONLINE: 1, PresenceState.AWAY: 2}
_STATES: Final = {number: state for state, number in _NUMBERS.items()}
_DIALECTS: Final[dict[str, Any]] = {"sqlite": sqlite, "postgresql": postgresql}


class Lease(NamedTuple):
    """One row. `expires_at` is in Unix milliseconds, `connection_id` 16 random bytes."""

    address: DeviceAddress
    connection_id: bytes
    state: PresenceState
    expires_at: int


def claim(connection: Connection, table: Table, lease: Lease) -> None:
    """Make a lease the device's, in place of any other connection's."""
    row = {
        "user_id": lease.address.user_id,
        "device_id": lease.address.device_id.raw,
        "connection_id": lease.connection_id,
        "state": _NUMBERS[lease.state],
        "expires_at": lease.expires_at,
    }
    statement = _DIALECTS[connection.dialect.name].insert(table)
    changes = {name: statement.excluded[name] for name in ("connection_id", "state", "expires_at")}
    keys = [table.c.user_id, table.c.device_id]
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes), row)


def renew(connection: Connection, table: Table, expiries: Mapping[bytes, int]) -> set[bytes]:
    """Renew the leases of these connections, each up to its own time; return those that still have theirs.

    One statement for up to 5,000. It never makes a row: one that is gone was taken over, or had ended.
    """
    found: set[bytes] = set()
    items = list(expiries.items())
    for at in range(0, len(items), ROWS_AT_ONCE):
        some = items[at : at + ROWS_AT_ONCE]
        parameters: dict[str, object] = {}
        for number, (connection_id, expires_at) in enumerate(some):
            parameters |= {f"c{number}": connection_id, f"e{number}": expires_at}
        rows = ", ".join(f"(:c{number}, :e{number})" for number in range(len(some)))
        # Spelled out, because both databases name the columns of VALUES so and agree on little else about them.
        statement = text(
            f"UPDATE {table.name} SET expires_at = renewed.column2 FROM (VALUES {rows}) AS renewed "  # noqa: S608 - numbers
            f"WHERE {table.name}.connection_id = renewed.column1 RETURNING {table.name}.connection_id"
        )
        found.update(bytes(each) for each in connection.scalars(statement, parameters))
    return found


def release(connection: Connection, table: Table, connection_id: bytes) -> bool:
    """End a connection's lease; False if it has none any more."""
    return connection.execute(delete(table).where(table.c.connection_id == connection_id)).rowcount > 0


def sweep(connection: Connection, table: Table, now: int) -> set[UserId]:
    """Delete the leases that have run out; return whose they were. Of several nodes, one gets each."""
    return set(connection.scalars(delete(table).where(table.c.expires_at <= now).returning(table.c.user_id)))


def next_expiry(connection: Connection, table: Table) -> int | None:
    """When the next lease runs out if nobody renews it."""
    expiry: int | None = connection.scalar(select(func.min(table.c.expires_at)))
    return expiry


def states(connection: Connection, table: Table, users: Iterable[UserId], now: int) -> dict[UserId, PresenceState]:
    """Say how these users stand, from the leases alive now; who has none is left out.

    Online if one of a user's devices is, else away.
    """
    wanted: Sequence[UserId] = sorted(users)
    found: dict[UserId, PresenceState] = {}
    best = (
        select(table.c.user_id, func.min(table.c.state))
        .where(table.c.user_id.in_(bindparam("users", expanding=True)), table.c.expires_at > now)
        .group_by(table.c.user_id)
    )
    for at in range(0, len(wanted), ROWS_AT_ONCE):
        for user_id, number in connection.execute(best, {"users": wanted[at : at + ROWS_AT_ONCE]}):
            found[UserId(user_id)] = _STATES[number]
    return found
