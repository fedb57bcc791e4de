"""The bus over Redis: PUBLISH and SUBSCRIBE, nothing stored.

Owns: the client.
Does not know about: what is said.
"""

from collections.abc import Callable
from typing import Final, final

try:
    from redis.asyncio import Redis
except ImportError as missing:
    raise ImportError("the bus over Redis needs redis: install 'e2ee-layer[redis]'") from missing

_CONNECT_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 5.0
"""How long to wait for a message before the connection itself is looked at."""


@final
class RedisWire:
    """Implements `nodes.Wire`. A URL like rediss://user:password@host:port/0."""

    def __init__(self, url: str, channel: str) -> None:
        self._channel = channel
        self._client: Redis = Redis.from_url(
            url,
            socket_connect_timeout=_CONNECT_SECONDS,
            socket_timeout=2 * _LOOK_SECONDS,
            health_check_interval=int(_LOOK_SECONDS),
            decode_responses=True,
        )

    async def listen(self, ready: Callable[[], None], take: Callable[[str], None]) -> None:
        async with self._client.pubsub() as channel:
            await channel.subscribe(self._channel)
            while True:
                message = await channel.get_message(timeout=_LOOK_SECONDS)
                if message is None:
                    await channel.ping()
                elif message["type"] == "subscribe":
                    ready()
                elif message["type"] == "message":
                    take(message["data"])

    async def send(self, payload: str) -> None:
        await self._client.publish(self._channel, payload)

    async def close(self) -> None:
        await self._client.aclose()
