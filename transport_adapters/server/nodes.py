"""The bus between nodes, whatever carries it: one that speaks, one that listens, both for ever.

Owns: what waits to be said, said once and together; reconnecting.
Does not know about: PostgreSQL and Redis (bus_postgresql.py, bus_redis.py); the bytes (news.py).

What this node publishes reaches its own listeners at once, and the others with the next payload. A hint says nothing
that a second one would add to, so the same news waits once. While the wire is down, hints are dropped beyond a bound:
when it is up again, everybody reads again.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Callable
from typing import Final, Protocol, final

from e2ee.errors import E2EEError
from e2ee.wire.identifiers import DeviceAddress, UserId
from transport_adapters.codes import ErrorCode
from transport_adapters.server.bus import (
    Admitted,
    Cut,
    Listener,
    LocalBus,
    NodeListener,
    NodeNews,
    PresenceChanged,
    PresenceListener,
    PresenceNews,
    Resumed,
    TypingChanged,
)
from transport_adapters.server.news import Hint, News, decode_news, encode_news, payloads

_logger = logging.getLogger(__name__)

MAX_WAITING: Final = 10_000
"""News that wait for the wire; beyond it the oldest are dropped."""
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 5.0
_LAST_WORDS: Final = 1.0
"""Seconds to say what waits when the bus closes."""


class Wire(Protocol):
    """Carries payloads, text of at most 7,500 bytes, to all nodes; the sender may get its own back."""

    async def listen(self, ready: Callable[[], None], take: Callable[[str], None]) -> None:
        """Connect, call `ready` once what is said from now on will be heard, then `take` for each payload.

        Raises:
            Exception: the connection could not be made, or was lost.
        """
        ...

    async def send(self, payload: str) -> None:
        """Send a payload, on a connection that is made when it is needed.

        Raises:
            Exception: it may not have been sent.
        """
        ...

    async def close(self) -> None:
        """Release the connections. Never raises."""
        ...


async def cut_at_nodes(wire: Wire, target: DeviceAddress | UserId) -> None:
    """Tell every node, from a program that is none of them, that a device was revoked, or all of a user's logins.

    Closes the wire.

    Raises:
        Exception: as `Wire.send`.
    """
    is_device = isinstance(target, DeviceAddress)
    news = Cut(target, ErrorCode.DEVICE_REVOKED if is_device else ErrorCode.TOKEN_INVALID)
    try:
        for payload in payloads(secrets.token_hex(8), [encode_news(news)]):
            await wire.send(payload)
    finally:
        await wire.close()


@final
class NodesBus:
    """Implements `Bus` over a wire."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._local = LocalBus()
        self._node = secrets.token_hex(8)
        self._waiting: dict[News, None] = {}
        self._news = asyncio.Event()
        self._listeners: list[NodeListener] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False

    async def start(self) -> None:
        if not self._tasks:
            self._tasks = [asyncio.create_task(each()) for each in (self._listen, self._speak)]

    async def close(self) -> None:
        if not self._tasks:
            return
        listening, speaking = self._tasks
        self._tasks = []
        self._closing = True
        self._news.set()
        await asyncio.wait([speaking], timeout=_LAST_WORDS)
        for task in (listening, speaking):
            task.cancel()
        await asyncio.wait([listening, speaking])
        await self._wire.close()

    def subscribe(self, address: DeviceAddress, listener: Listener) -> Callable[[], None]:
        return self._local.subscribe(address, listener)

    def publish(self, address: DeviceAddress) -> None:
        self._local.publish(address)
        self._put(Hint(address))

    def subscribe_presence(self, listener: PresenceListener) -> Callable[[], None]:
        return self._local.subscribe_presence(listener)

    def publish_presence(self, news: PresenceNews) -> None:
        self._local.publish_presence(news)
        self._put(news)

    def subscribe_nodes(self, listener: NodeListener) -> None:
        self._listeners.append(listener)

    def publish_to_nodes(self, news: Cut | Admitted) -> None:
        self._put(news)

    def _put(self, news: News) -> None:
        self._waiting[news] = None
        while len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._news.set()

    async def _speak(self) -> None:
        failures = 0
        while not self._closing or self._waiting:
            await self._news.wait()
            self._news.clear()
            batch, self._waiting = list(self._waiting), {}
            try:
                for payload in payloads(self._node, map(encode_news, batch)):
                    await self._wire.send(payload)
                failures = 0
            except Exception as error:  # noqa: BLE001 - of the database or broker; what waits is said later
                failures += 1
                _logger.warning("Other nodes could not be told: %s", type(error).__name__)
                self._waiting = dict.fromkeys([*batch, *self._waiting])
                self._news.set()
                await asyncio.sleep(_pause(failures))

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                await self._wire.listen(self._resumed, self._take)
            except Exception as error:  # noqa: BLE001 - of the database or broker; it is tried again
                _logger.warning("Other nodes cannot be heard: %s", type(error).__name__)
            failures += 1
            await asyncio.sleep(_pause(failures))

    def _resumed(self) -> None:
        self._tell(Resumed())
        self._local.publish_to_all()

    def _take(self, payload: str) -> None:
        try:
            node, several = decode_news(payload)
        except E2EEError as error:
            _logger.warning("Something that is no news came over the bus: %s", error.code)
            return
        if node == self._node:
            return
        for news in several:
            match news:
                case Hint(address):
                    self._local.publish(address)
                case PresenceChanged() | TypingChanged():
                    self._local.publish_presence(news)
                case Cut() | Admitted():
                    self._tell(news)

    def _tell(self, news: NodeNews) -> None:
        for listener in self._listeners:
            listener(news)


def _pause(failures: int) -> float:
    """Return how long to wait after so many failures in a row, 1 or more: full jitter."""
    return random.uniform(0, min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(failures, 16)))  # noqa: S311 - no secret
