"""How many requests one user and one address may send, counted by all nodes together.

Owns: names of these buckets; that a node takes several tokens at once, so that not every request costs a write.
Does not know about: where buckets are kept (database, Redis), who asks.

What a limit protects by itself (claims, lists, uploads, registrations) is counted in the transaction of that, by the
services, and rolled back with it. This here bounds everything, before anything else is done.

A node that took tokens spends them within ten seconds or loses them: all nodes together give at most the limit, and a
client whose requests are spread over nodes gets a little less. Who spends them in time gets more of them at once.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, final

from e2ee.limits import SECOND_MS
from e2ee.wire.identifiers import UserId
from keyserver.auth import Clock
from keyserver.buckets import MAX_NAMES, Buckets
from keyserver.peers import Peer
from keyserver.problems import RateLimitedProblem
from keyserver.repository.rate_limits import RateLimit, RequestLimits

AT_ONCE: Final = 20
MAX_AT_ONCE: Final = 80
HELD_MS: Final = 10 * SECOND_MS


class _Held(NamedTuple):
    left: int
    taken: int
    """At once, the last time."""
    until: int


@final
class Allowances:
    """Counts requests."""

    def __init__(self, buckets: Buckets, limits: RequestLimits, now: Clock) -> None:
        self._buckets = buckets
        self._limits = limits
        self._now = now
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._bringing: dict[str, asyncio.Task[None]] = {}

    async def request_of_address(self, peer: Peer) -> None:
        """Count a request of a client, before it is known who that is.

        Raises:
            RateLimitedProblem: too many.
        """
        if peer.bucket is not None:
            await self._count(f"requests from {peer.bucket}", self._limits.per_address)

    async def request_of_user(self, user_id: UserId) -> None:
        """Count a request of a user who has shown a token.

        Raises:
            RateLimitedProblem: too many.
        """
        await self._count(_by_user(user_id), self._limits.per_user)

    def has_request_of_user(self, user_id: UserId) -> bool:
        """Count a request if this node holds some for its user. False, and nothing done, if not."""
        return self._spend(_by_user(user_id))

    async def close(self) -> None:
        """Let go of connections."""
        await self._buckets.close()

    async def _count(self, name: str, limit: RateLimit) -> None:
        while not self._spend(name):
            # One at a time asks for all who came meanwhile. Did each, they took the whole bucket to this node at once,
            # and were refused beside what the others brought.
            bringing = self._bringing.get(name)
            if bringing is None:
                bringing = asyncio.get_running_loop().create_task(self._bring(name, limit))
                bringing.add_done_callback(_look_at)
                self._bringing[name] = bringing
            await asyncio.shield(bringing)  # who leaves takes nothing along that others wait for

    async def _bring(self, name: str, limit: RateLimit) -> None:
        try:
            number = self._portion(name, limit)
            wait = await self._buckets.take(name, limit, number)
            if wait and number > 1:
                number = 1
                wait = await self._buckets.take(name, limit, number)
            if wait:
                raise RateLimitedProblem(wait)
            self._hold(name, number)
        finally:
            del self._bringing[name]

    def _portion(self, name: str, limit: RateLimit) -> int:
        """Say how many to take: a small part of the bucket, so that its last tokens are not stuck on one node."""
        least = max(1, min(AT_ONCE, limit.burst // 50))
        before = self._held.get(name)
        if before is None or before.taken == 1:
            return least
        return max(least, min(2 * before.taken, MAX_AT_ONCE, limit.burst // 10))

    def _spend(self, name: str) -> bool:
        held = self._held.pop(name, None)
        if held is None or not 0 < held.until - self._now() <= HELD_MS:
            return False
        self._held[name] = held._replace(left=max(0, held.left - 1))
        return held.left > 0

    def _hold(self, name: str, number: int) -> None:
        self._held.pop(name, None)
        self._held[name] = _Held(number, number, self._now() + HELD_MS)
        if len(self._held) > MAX_NAMES:
            self._held.popitem(last=False)


def _look_at(brought: "asyncio.Task[None]") -> None:
    if not brought.cancelled():
        brought.exception()  # looked at, so that nobody logs it when all who waited have left


def _by_user(user_id: UserId) -> str:
    return f"requests by {user_id}"


Admit = Callable[[Peer], Awaitable[None]]
"""Counts a request; raises `RateLimitedProblem`."""
