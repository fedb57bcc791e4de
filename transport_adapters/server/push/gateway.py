"""Waking devices that are not connected: when, how often, and through whom.

Owns: the short wait before a push, what is worth one, retries, the end of dead subscriptions.
Does not know about: the providers' protocols; what an envelope holds, who sent it, to which conversation it belongs.

A push says "look", and nothing else: the same bytes for every envelope, so a provider learns when a device is woken. It
goes out only if the envelope still waits after the delay and the device is not connected to this node; one that is
connected to another node has fetched it by then. Wake-ups that a crash loses are lost: the next envelope makes another.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, final

from sqlalchemy import Connection

from e2ee.wire.envelope import Lane
from e2ee.wire.identifiers import DeviceAddress
from transport_adapters.server.ports import Database
from transport_adapters.server.push.ports import Provider, PushKind, Subscription, Subscriptions

_logger = logging.getLogger(__name__)

MAX_WAITING: Final = 10_000
"""Devices whose delay runs; beyond it an envelope wakes nobody."""
AT_ONCE: Final = 16
ATTEMPTS: Final = 4
MAX_RETRY_AFTER: Final = 300.0
_WORTH_A_PUSH: Final = frozenset({Lane.CONTROL, Lane.CHAT})


@final
@dataclass(frozen=True, slots=True)
class PushSettings:
    """Times in seconds."""

    delay: float = 3.0
    """An envelope that is fetched within this time wakes nobody."""
    pause: float = 30.0
    """Between two pushes to one device. A call is not held up by it for longer than `urgent_pause`."""
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
    """Is told of every stored envelope; `close` before the database closes."""

    def __init__(
        self, around: Around, providers: Mapping[PushKind, Provider], settings: PushSettings | None = None
    ) -> None:
        self._around = around
        self._providers = providers
        self._settings = settings or PushSettings()
        self._waiting: dict[tuple[DeviceAddress, bool], asyncio.TimerHandle] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def stored(self, address: DeviceAddress, lane: Lane) -> None:
        """Note that an envelope was stored for a device. Never waits, never fails."""
        key = address, lane is Lane.CONTROL
        if lane not in _WORTH_A_PUSH or key in self._waiting or len(self._waiting) >= MAX_WAITING:
            return
        if not self._around.is_live(address):
            loop = asyncio.get_running_loop()
            self._waiting[key] = loop.call_later(self._settings.delay, self._due, *key)

    async def close(self) -> None:
        """Wake nobody any more, and release the providers."""
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for provider in self._providers.values():
            await provider.aclose()

    def _due(self, address: DeviceAddress, urgent: bool) -> None:
        self._waiting.pop((address, urgent), None)
        self._spawn(self._wake(address, urgent))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wake(self, address: DeviceAddress, urgent: bool) -> None:
        async with self._room:
            if self._around.is_live(address):
                return
            try:
                claimed = await self._around.database.write(lambda connection: self._claim(connection, address, urgent))
                if claimed is not None:
                    await self._ask(claimed, urgent)
            except Exception as error:  # noqa: BLE001 - of the database; the next envelope tries again
                _logger.error("A device could not be woken: %s", type(error).__name__)

    def _claim(self, connection: Connection, address: DeviceAddress, urgent: bool) -> Subscription | None:
        around, settings = self._around, self._settings
        if not around.is_waiting(connection, address):
            return None
        pause = settings.urgent_pause if urgent else settings.pause
        return around.subscriptions.claim(connection, address, around.now(), int(pause * 1000))

    def _forget(self, subscription: Subscription, connection: Connection) -> None:
        self._around.subscriptions.remove(connection, subscription)

    async def _ask(self, subscription: Subscription, urgent: bool) -> None:
        provider = self._providers.get(subscription.kind)
        if provider is None:
            return
        for attempt in range(ATTEMPTS):
            verdict = await provider.wake(subscription, urgent=urgent)
            if verdict.is_gone:
                await self._around.database.write(partial(self._forget, subscription))
                return
            if verdict.retry_after is None:
                return
            backoff = self._settings.first_retry * 2.0**attempt
            await asyncio.sleep(min(MAX_RETRY_AFTER, max(verdict.retry_after, backoff)))
        _logger.warning("A push service refused %s times", ATTEMPTS)
