"""Token buckets in the database, so that they hold across processes and restarts.

Owns: the statements on `e2ee_rate_limits`, the arithmetic of a bucket.
Does not know about: what is limited.

A bucket is stored as the time at which it will be full again (the generic cell rate algorithm): one number, one
atomic statement, and no row at all for a full bucket.
"""

from typing import NamedTuple

from sqlalchemy import Connection, case, delete, select

from keyserver.repository.statements import insert
from keyserver.tables import rate_limits


class RateLimit(NamedTuple):
    """`burst` tokens at most, one more every `interval_ms` milliseconds."""

    burst: int
    interval_ms: int


def take(connection: Connection, name: str, limit: RateLimit, now: int) -> int:
    """Take one token. Return 0, or how many milliseconds are missing until there is one."""
    capacity = limit.burst * limit.interval_ms
    statement = insert(connection, rate_limits).values(name=name, full_at=now + limit.interval_ms)
    start = case((rate_limits.c.full_at > now, rate_limits.c.full_at), else_=now)
    taken = connection.execute(
        statement.on_conflict_do_update(
            index_elements=[rate_limits.c.name],
            set_={"full_at": start + limit.interval_ms},
            where=start + limit.interval_ms <= now + capacity,
        ).returning(rate_limits.c.full_at)
    ).one_or_none()
    if taken is not None:
        return 0
    full_at: int = connection.execute(select(rate_limits.c.full_at).where(rate_limits.c.name == name)).scalar_one()
    return full_at + limit.interval_ms - capacity - now


def forget_full(connection: Connection, now: int) -> int:
    """Delete the rows of full buckets; return how many."""
    return connection.execute(delete(rate_limits).where(rate_limits.c.full_at <= now)).rowcount
