"""Waking devices that are not connected: when, how often, and through whom.

Owns: the short wait before a push, what is worth one, retries, the end of dead subscriptions.
Does not know about: the providers' protocols; what an envelope holds, who sent it, to which conversation it belongs.

A push says "look", and nothing else: the same bytes for every envelope, so a provider learns when a device is woken. It
goes out only if the envelope still waits after the delay and the device is not connected to this node; one that is
connected to another node has fetched it by then. What was stored for a connection that turned out to be dead wakes when
that is noticed. Wake-ups that a crash loses are lost: the next envelope makes another.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, final

from sqlalchemy import Connection

from e2ee.wire.envelope import Lane
from e2ee.wire.identifiers import DeviceAddress
from transport_adapters.server.ports import Database
from transport_adapters.server.push.ports import Paused, Provider, PushKind, Subscription, Subscriptions

_logger = logging.getLogger(__name__)

MAX_WAITING: Final = 10_000
"""Devices whose delay runs, and as many that are being woken; beyond it an envelope wakes nobody."""
AT_ONCE: Final = 16
ATTEMPTS: Final = 4
MAX_RETRY_AFTER: Final = 300.0
_WORTH_A_PUSH: Final = frozenset({Lane.CONTROL, Lane.CHAT})


@final
@dataclass(frozen=True, slots=True)
class PushSettings:
    """Times in seconds; `urgent` are those of lane 0: a call rings for a minute."""

    delay: float = 3.0
    """An envelope that is fetched within this time wakes nobody."""
    urgent_delay: float = 0.5
    pause: float = 30.0
    """Between two pushes to one device; what comes meanwhile and is not fetched wakes at its end."""
    urgent_pause: float = 2.0
    first_retry: float = 2.0


@final
@dataclass(frozen=True, slots=True)
class Around:
    """What the gateway asks and uses."""

    database: Database
    subscriptions: Subscriptions
    is_waiting: Callable[[Connection, DeviceAddress], bool]
    """Whether something waits unacknowledged in a device's inbox."""
    is_live: Callable[[DeviceAddress], bool]
    now: Callable[[], int]


@final
class PushGateway:
    """Implements `Waker`. `close` it before the database closes."""

    def __init__(
        self, around: Around, providers: Mapping[PushKind, Provider], settings: PushSettings | None = None
    ) -> None:
        self._around = around
        self._providers = providers
        self._settings = settings or PushSettings()
        self._waiting: dict[tuple[DeviceAddress, bool], asyncio.TimerHandle] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def stored(self, address: DeviceAddress, lane: Lane) -> None:
        if lane in _WORTH_A_PUSH and not self._around.is_live(address):
            urgent = lane is Lane.CONTROL
            self._note(address, urgent, self._settings.urgent_delay if urgent else self._settings.delay)

    def left(self, address: DeviceAddress) -> None:
        self._note(address, False, self._settings.delay)

    async def close(self) -> None:
        """Wake nobody any more, and release the providers."""
        self._closed = True  # what is stored meanwhile starts no timer
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for provider in self._providers.values():
            await provider.aclose()

    def _note(self, address: DeviceAddress, urgent: bool, delay: float) -> None:
        key = address, urgent
        if not self._closed and key not in self._waiting and len(self._waiting) < MAX_WAITING:
            self._waiting[key] = asyncio.get_running_loop().call_later(delay, self._due, *key)

    def _due(self, address: DeviceAddress, urgent: bool) -> None:
        del self._waiting[address, urgent]
        if len(self._tasks) < MAX_WAITING:
            task = asyncio.create_task(self._wake(address, urgent))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _wake(self, address: DeviceAddress, urgent: bool) -> None:
        if self._around.is_live(address):
            return
        try:
            claimed = await self._around.database.write(lambda connection: self._claim(connection, address, urgent))
            if isinstance(claimed, Paused):
                self._note(address, urgent, claimed.left_ms / 1000)
            elif claimed is not None:
                await self._ask(claimed, urgent)
        except Exception as error:  # noqa: BLE001 - of the database; the next envelope tries again
            _logger.error("A device could not be woken: %s", type(error).__name__)

    def _claim(self, connection: Connection, address: DeviceAddress, urgent: bool) -> Subscription | Paused | None:
        around, settings = self._around, self._settings
        if not around.is_waiting(connection, address):
            return None
        pause = settings.urgent_pause if urgent else settings.pause
        return around.subscriptions.claim(connection, address, around.now(), int(pause * 1000))

    async def _ask(self, subscription: Subscription, urgent: bool) -> None:
        provider = self._providers.get(subscription.kind)
        if provider is None:
            return  # the server had it when the device subscribed
        for attempt in range(ATTEMPTS):
            async with self._room:
                verdict = await provider.wake(subscription, urgent=urgent)
            if verdict.is_gone:
                await self._around.database.write(
                    lambda connection: self._around.subscriptions.remove(connection, subscription)
                )
            if verdict.retry_after is None:
                return
            backoff = self._settings.first_retry * 2.0**attempt
            await asyncio.sleep(min(MAX_RETRY_AFTER, max(verdict.retry_after, backoff)))
            if self._around.is_live(subscription.address):
                return
        _logger.warning("A push service could not be reached, or refused, %s times", ATTEMPTS)
