"""Token buckets in Redis, for servers on which many requests a second are counted.

Owns: the script that takes tokens, the client.
Does not know about: what is limited.

The arithmetic is that of `repository/rate_limits.py`: a bucket is the time at which it will be full again.
"""

from typing import Any, Final, final

try:
    from redis.asyncio import Redis
except ImportError as missing:
    raise ImportError("rate limits in Redis need redis: install 'e2ee-layer[redis]'") from missing

from keyserver.auth import Clock
from keyserver.repository.rate_limits import RateLimit

_SECONDS: Final = 1.0
"""For a connection, and for an answer: a request waits for it."""

_TAKE: Final = """
local now, cost, capacity = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + cost
if full_at - now > capacity then return full_at - now - capacity end
redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', full_at - now)
return 0
"""
"""Whole milliseconds below 2^53 are exact in Lua's numbers."""


@final
class RedisBuckets:
    """Implements `allowances.Buckets`. A URL like rediss://user:password@host:port/0."""

    def __init__(self, url: str, prefix: str, now: Clock) -> None:
        self._prefix = prefix
        self._now = now
        self._client: Redis = Redis.from_url(url, socket_connect_timeout=_SECONDS, socket_timeout=_SECONDS)
        self._take: Any = self._client.register_script(_TAKE)

    async def take(self, name: str, limit: RateLimit, number: int) -> int:
        """Take tokens; the script runs as one step."""
        values = [self._now(), number * limit.interval_ms, limit.burst * limit.interval_ms]
        return int(await self._take(keys=[f"{self._prefix}:{name}"], args=values))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
