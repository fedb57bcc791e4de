"""Waking devices that are not connected: when, how often, and through whom.

Owns: the short wait before a push, what is worth one, retries, the end of dead subscriptions.
Does not know about: the providers' protocols; what an envelope holds, who sent it, to which conversation it belongs.

A push says "look", and nothing else: the same bytes for every envelope, so a provider learns when a device is woken. It
goes out only if the envelope still waits after the delay and the device is not connected to this node; one that is
connected to another node has fetched it by then. What was stored for a connection that turned out to be dead wakes when
that is noticed. Wake-ups that a crash loses are lost: the next envelope makes another.

Hosts are named by devices, within the operator's list, so one that takes requests and answers none is taken for an
attack on the others: each has a bounded part of what is under way, and of what waits. A device is woken once at a time
(and once more urgently), however long that takes.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, final
from weakref import WeakValueDictionary

from sqlalchemy import Connection

from e2ee.wire.envelope import Lane
from e2ee.wire.identifiers import DeviceAddress
from transport_adapters.server.ports import Database
from transport_adapters.server.push.ports import Paused, Provider, PushKind, Subscription, Subscriptions

_logger = logging.getLogger(__name__)

MAX_WAITING: Final = 10_000
"""Devices whose delay runs, and as many that are being woken; beyond it an envelope wakes nobody."""
MAX_PER_HOST: Final = MAX_WAITING // 2
"""Of those that are being woken, whose push goes to one host."""
AT_ONCE: Final = 64
AT_ONCE_PER_HOST: Final = 16
"""Requests under way."""
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
        self._hosts: WeakValueDictionary[str, _Host] = WeakValueDictionary()
        self._waking: dict[tuple[DeviceAddress, bool], asyncio.Task[None]] = {}
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
        if waking := list(self._waking.values()):
            for task in waking:
                task.cancel()
            await asyncio.wait(waking)
        for provider in self._providers.values():
            await provider.aclose()

    def _note(self, address: DeviceAddress, urgent: bool, delay: float) -> None:
        key = address, urgent
        if not self._closed and key not in self._waiting and len(self._waiting) < MAX_WAITING:
            self._waiting[key] = asyncio.get_running_loop().call_later(delay, self._due, *key)

    def _due(self, address: DeviceAddress, urgent: bool) -> None:
        key = address, urgent
        del self._waiting[key]
        if key in self._waking:
            self._note(address, urgent, self._pause(urgent))
        elif len(self._waking) < MAX_WAITING:
            task = self._waking[key] = asyncio.create_task(self._wake(address, urgent))
            task.add_done_callback(lambda _: self._waking.pop(key))

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
        around = self._around
        if not around.is_waiting(connection, address):
            return None
        return around.subscriptions.claim(connection, address, around.now(), int(self._pause(urgent) * 1000))

    def _pause(self, urgent: bool) -> float:
        return self._settings.urgent_pause if urgent else self._settings.pause

    async def _ask(self, subscription: Subscription, urgent: bool) -> None:
        provider = self._providers.get(subscription.kind)
        if provider is None:
            return  # the server had it when the device subscribed
        host = self._hosts.setdefault(subscription.host, _Host())
        if host.wakes >= MAX_PER_HOST:
            return
        host.wakes += 1
        try:
            await self._ask_at(host, provider, subscription, urgent)
        finally:
            host.wakes -= 1

    async def _ask_at(self, host: "_Host", provider: Provider, subscription: Subscription, urgent: bool) -> None:
        for attempt in range(ATTEMPTS):
            async with host.room, self._room:
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


@final
class _Host:
    """A host that is asked to wake devices: how many there are, and how many requests are under way."""

    def __init__(self) -> None:
        self.room = asyncio.Semaphore(AT_ONCE_PER_HOST)
        self.wakes = 0
