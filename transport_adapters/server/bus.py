"""Hints: "this device's mailbox has something new".

Owns: who listens for which device, in this process.
Does not know about: what is new. A hint carries no data; losing one costs time, never a message.
"""

from collections.abc import Callable
from typing import Protocol, final

from e2ee.wire.identifiers import DeviceAddress

Listener = Callable[[], None]


class Bus(Protocol):
    """Carries hints. Subscribe before the first read; publish after the commit."""

    def subscribe(self, address: DeviceAddress, listener: Listener) -> Callable[[], None]:
        """Call `listener` on every hint for the device, until the returned function is called."""
        ...

    def publish(self, address: DeviceAddress) -> None:
        """Send a hint. Never waits, never fails."""
        ...


@final
class LocalBus:
    """Hints within one process."""

    def __init__(self) -> None:
        self._listeners: dict[DeviceAddress, list[Listener]] = {}

    def subscribe(self, address: DeviceAddress, listener: Listener) -> Callable[[], None]:
        self._listeners.setdefault(address, []).append(listener)

        def unsubscribe() -> None:
            listeners = self._listeners.get(address, [])
            if listener in listeners:
                listeners.remove(listener)
            if not listeners:
                self._listeners.pop(address, None)

        return unsubscribe

    def publish(self, address: DeviceAddress) -> None:
        for listener in list(self._listeners.get(address, ())):
            listener()
