"""Hints: "this device's mailbox has something new".

Owns: who listens for which device, in this process; what is said about presence.
Does not know about: what is new. A hint carries no data; losing one costs time, never a message.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, final

from e2ee.wire.identifiers import ConversationId, DeviceAddress, UserId

Listener = Callable[[], None]


class PresenceChanged(NamedTuple):
    """A user's leases may say something new: who watches the user reads them again."""

    user_id: UserId


class TypingChanged(NamedTuple):
    """A user writes to another one, or stopped. Nobody stores it: who misses it misses nothing."""

    sender: UserId
    recipient: UserId
    conversation: ConversationId | None
    active: bool


PresenceNews = PresenceChanged | TypingChanged
PresenceListener = Callable[[PresenceNews], None]


class PresenceBus(Protocol):
    """Carries news of presence to every node, the one that publishes it included."""

    def subscribe_presence(self, listener: PresenceListener) -> Callable[[], None]:
        """Call `listener` on all news, until the returned function is called."""
        ...

    def publish_presence(self, news: PresenceNews) -> None:
        """Send news. Never waits, never fails; may be lost."""
        ...


class Bus(PresenceBus, Protocol):
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
        self._presence: list[PresenceListener] = []

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

    def subscribe_presence(self, listener: PresenceListener) -> Callable[[], None]:
        self._presence.append(listener)

        def unsubscribe() -> None:
            if listener in self._presence:
                self._presence.remove(listener)

        return unsubscribe

    def publish_presence(self, news: PresenceNews) -> None:
        for listener in list(self._presence):
            listener(news)
