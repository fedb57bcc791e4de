"""Where requests are counted: in the database, in Redis, and in this process while that is away.

Owns: the choice, and what happens when the place cannot be reached.
Does not know about: what is counted and under which name (allowances.py).
"""

import logging
from collections import OrderedDict
from typing import Final, Protocol, final

from keyserver.auth import Clock
from keyserver.database import Database
from keyserver.repository import rate_limits
from keyserver.repository.rate_limits import RateLimit
from keyserver.settings import DATABASE_LIMITS, Settings

MAX_NAMES: Final = 20_000
"""Buckets that a node remembers; beyond it the one that was asked for longest ago is forgotten."""

_log = logging.getLogger("keyserver")


class Buckets(Protocol):
    """Keeps token buckets for all nodes."""

    async def take(self, name: str, limit: RateLimit, number: int) -> int:
        """Take `number` tokens or none. Return 0, or how many milliseconds are missing until there are so many."""

    async def close(self) -> None:
        """Let go of connections."""


def make_buckets(settings: Settings, database: Database, now: Clock) -> "Buckets":
    """Make what the settings name. The library for Redis comes with the extra `redis`."""
    if settings.rate_limits == DATABASE_LIMITS:
        return DatabaseBuckets(database, now)
    from keyserver.redis_buckets import RedisBuckets

    return FallingBack(RedisBuckets(settings.rate_limits, settings.own_name("e2ee_limits"), now), now)


@final
class DatabaseBuckets:
    """Buckets in the database."""

    def __init__(self, database: Database, now: Clock) -> None:
        self._database = database
        self._now = now

    async def take(self, name: str, limit: RateLimit, number: int) -> int:
        # Beside the one statement there is at most a look at how long to wait.
        return await self._database.write_one(
            lambda connection: rate_limits.take(connection, name, limit, self._now(), number)
        )

    async def close(self) -> None:
        """The database is closed by whoever opened it."""


@final
class OwnBuckets:
    """Buckets of this process alone: what is left when those of all cannot be reached."""

    def __init__(self, now: Clock) -> None:
        self._now = now
        self._full_at: OrderedDict[str, int] = OrderedDict()

    async def take(self, name: str, limit: RateLimit, number: int) -> int:
        now = self._now()
        full_at = max(self._full_at.pop(name, 0), now) + number * limit.interval_ms
        wait = full_at - now - limit.burst * limit.interval_ms
        self._full_at[name] = full_at if wait <= 0 else full_at - number * limit.interval_ms
        if len(self._full_at) > MAX_NAMES:
            self._full_at.popitem(last=False)
        return max(0, wait)

    async def close(self) -> None:
        """Nothing is open."""


@final
class FallingBack:
    """Buckets elsewhere, and this process's own while those cannot be reached: a limit never stops everybody."""

    def __init__(self, shared: Buckets, now: Clock) -> None:
        self._shared = shared
        self._own = OwnBuckets(now)
        self._away = False

    async def take(self, name: str, limit: RateLimit, number: int) -> int:
        try:
            wait = await self._shared.take(name, limit, number)
        except Exception as error:  # noqa: BLE001 - of any driver
            if not self._away:
                _log.warning("requests are counted by this process alone: %s", type(error).__name__)
            self._away = True
            return await self._own.take(name, limit, number)
        self._away = False
        return wait

    async def close(self) -> None:
        await self._shared.close()
