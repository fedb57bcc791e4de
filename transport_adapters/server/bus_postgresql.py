"""The bus over PostgreSQL's LISTEN and NOTIFY: no server beside the database.

Owns: two connections of its own; a NOTIFY takes a lock of the whole cluster until its commit, so it is never part of a
transaction that stores something.
Does not know about: what is said.
"""

from collections.abc import Callable
from typing import Any, Final, final

try:
    import psycopg
    from psycopg import AsyncConnection, sql
except ImportError as missing:
    raise ImportError("the bus over PostgreSQL needs psycopg: install 'e2ee-layer[postgres]'") from missing

# A connection whose other end vanished is noticed within about 15 seconds.
_KEEPALIVE: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


@final
class PostgreSqlWire:
    """Implements `nodes.Wire`. `conninfo` is a URL or connection string of libpq."""

    def __init__(self, conninfo: str, channel: str) -> None:
        self._conninfo = conninfo
        self._channel = channel
        self._speaking: AsyncConnection[Any] | None = None

    async def listen(self, ready: Callable[[], None], take: Callable[[str], None]) -> None:
        connection = await self._connect()
        try:
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
            ready()
            async for notice in connection.notifies():
                take(notice.payload)
        finally:
            await connection.close()

    async def send(self, payload: str) -> None:
        if self._speaking is None:
            self._speaking = await self._connect()
        try:
            await self._speaking.execute("SELECT pg_notify(%s, %s)", (self._channel, payload))
        except psycopg.Error:
            await self.close()
            raise

    async def close(self) -> None:
        connection, self._speaking = self._speaking, None
        if connection is not None:
            await connection.close()

    async def _connect(self) -> AsyncConnection[Any]:
        return await AsyncConnection.connect(self._conninfo, autocommit=True, **_KEEPALIVE)
