"""Token buckets in the database, so that they hold across processes and restarts.

Owns: the statements on `e2ee_rate_limits`, the arithmetic of a bucket.
Does not know about: what is limited.

A bucket is stored as the time at which it will be full again (the generic cell rate algorithm): one number, one
atomic statement, and no row at all for a full bucket.
"""

from typing import NamedTuple

from sqlalchemy import BigInteger, Connection, Executable, bindparam, case, delete, select

from keyserver.repository.statements import Insert, Upsert
from keyserver.tables import rate_limits


class RateLimit(NamedTuple):
    """`burst` tokens at most, one more every `interval_ms` milliseconds."""

    burst: int
    interval_ms: int


class RequestLimits(NamedTuple):
    """How many requests one user and one address may send."""

    per_user: RateLimit
    per_address: RateLimit


def take(connection: Connection, name: str, limit: RateLimit, now: int, number: int = 1) -> int:
    """Take `number` tokens, at most a full bucket, or none.

    Return 0, or how many milliseconds are missing until there are so many.
    """
    capacity, cost = limit.burst * limit.interval_ms, number * limit.interval_ms
    values = {"its_name": name, "if_full": now + cost, "its_now": now}
    bounds = {"its_interval": cost, "its_latest": now + capacity}
    if connection.execute(_TAKE.on(connection), values | bounds).one_or_none() is not None:
        return 0
    full_at: int = connection.execute(_FULL_AT, {"its_name": name}).scalar_one()
    return full_at + cost - capacity - now


def forget_full(connection: Connection, now: int) -> int:
    """Delete the rows of full buckets; return how many.

    Those that somebody takes from at this moment stay: whoever waits for rows in another order than the takers do may
    wait for one who waits for him.
    """
    # Counted by what comes back: SQLite's driver does not count what begins with WITH.
    return len(connection.scalars(_FORGET_FULL, {"its_now": now}).all())


def _take(insert: Insert) -> Executable:
    now = bindparam("its_now", type_=BigInteger)
    start = case((rate_limits.c.full_at > now, rate_limits.c.full_at), else_=now)
    full_at = start + bindparam("its_interval", type_=BigInteger)
    return (
        insert.values(name=bindparam("its_name"), full_at=bindparam("if_full"))
        .on_conflict_do_update(
            index_elements=[rate_limits.c.name],
            set_={"full_at": full_at},
            where=full_at <= bindparam("its_latest", type_=BigInteger),
        )
        .returning(rate_limits.c.full_at)
    )


_TAKE = Upsert(rate_limits, _take)
_FULL_AT = select(rate_limits.c.full_at).where(rate_limits.c.name == bindparam("its_name"))
_FULL = (
    select(rate_limits.c.name)
    .where(rate_limits.c.full_at <= bindparam("its_now", type_=BigInteger))
    .with_for_update(skip_locked=True)
    .cte("already_full")
    .prefix_with("MATERIALIZED")
)
_FORGET_FULL = delete(rate_limits).where(rate_limits.c.name.in_(select(_FULL.c.name))).returning(rate_limits.c.name)
