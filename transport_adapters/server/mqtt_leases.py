"""Which bridge has which bucket, in the database.

Owns: every statement on `e2ee_leases`; how buckets are shared out among the bridges there are.
Does not know about: brokers, what is done with a bucket.

A row is a name, who has it, and until when. Each bridge has a row of its own, which says that it is there, and one for
each bucket that it has. It renews all of them together; what was not renewed is anybody's.
"""

from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Table, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

_BRIDGE: Final = "mqtt-bridge/"
_BUCKET: Final = "mqtt-bucket/"
_DIALECTS: Final[dict[str, Any]] = {"sqlite": sqlite, "postgresql": postgresql}


class Bridge(NamedTuple):
    """Who asks: 16 random bytes, and how long what it gets shall last, in milliseconds."""

    owner: bytes
    lease_ms: int


class Holding(NamedTuple):
    """The buckets that a bridge has, and those of them that it should hand over to others."""

    held: frozenset[int]
    surplus: frozenset[int]


def renew(connection: Connection, table: Table, bridge: Bridge, buckets: int, now: int) -> Holding:
    """Renew what the bridge has, and take what is free, up to its share: all buckets over all bridges, rounded up."""
    until = now + bridge.lease_ms
    connection.execute(delete(table).where(table.c.expires_at <= now))
    connection.execute(update(table).where(table.c.owner == bridge.owner).values(expires_at=until))
    _take(connection, table, [f"{_BRIDGE}{bridge.owner.hex()}"], bridge.owner, until)
    counted = select(func.count()).where(table.c.name.startswith(_BRIDGE))
    share = -(-buckets // (connection.scalar(counted) or 1))
    taken = {_number(name): owner for name, owner in connection.execute(_bucket_rows(table))}
    free = [number for number in range(buckets) if number not in taken]
    held = {number for number, owner in taken.items() if owner == bridge.owner}
    wanted = [f"{_BUCKET}{number}" for number in free[: max(0, share - len(held))]]
    held |= {_number(name) for name in _take(connection, table, wanted, bridge.owner, until)}
    return Holding(frozenset(held), frozenset(sorted(held)[share:]))


def release(connection: Connection, table: Table, bridge: Bridge, buckets: frozenset[int] | None = None) -> None:
    """Give buckets back, or (None) everything: the bridge goes."""
    ours = delete(table).where(table.c.owner == bridge.owner)
    if buckets is not None:
        ours = ours.where(table.c.name.in_([f"{_BUCKET}{number}" for number in buckets]))
    connection.execute(ours)


def clear(connection: Connection, table: Table) -> None:
    """Forget all bridges: for a server that is the only one."""
    connection.execute(delete(table))


def _take(connection: Connection, table: Table, names: list[str], owner: bytes, until: int) -> list[str]:
    """Take what nobody has; return what was taken."""
    if not names:
        return []
    rows = [{"name": name, "owner": owner, "expires_at": until} for name in names]
    statement = _DIALECTS[connection.dialect.name].insert(table).on_conflict_do_nothing().returning(table.c.name)
    return list(connection.scalars(statement, rows))


def _bucket_rows(table: Table) -> Any:
    return select(table.c.name, table.c.owner).where(table.c.name.startswith(_BUCKET))


def _number(name: str) -> int:
    return int(name.removeprefix(_BUCKET))
