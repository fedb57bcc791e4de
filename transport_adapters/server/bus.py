"""What the nodes of one deployment tell each other: hints, presence, who was cut, who connected where.

Owns: the vocabulary; who listens for what, in this process.
Does not know about: what is new in a mailbox; other processes (nodes.py). Losing a hint costs time, never a message.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, final

from e2ee.wire.identifiers import ConversationId, DeviceAddress, UserId
from transport_adapters.codes import ErrorCode
from transport_adapters.frames import InstanceId

Listener = Callable[[], None]


class Cut(NamedTuple):
    """The connections of a device, or of all of a user's, end now. `code` says why."""

    target: DeviceAddress | UserId
    code: ErrorCode


class Admitted(NamedTuple):
    """A device has said `hello`: its connection of this number, of this instance, at this time (Unix milliseconds)."""

    address: DeviceAddress
    instance: InstanceId
    number: int
    at: int


class Resumed(NamedTuple):
    """Other nodes can be heard, from now on or again: what they said before may be lost."""


NodeNews = Cut | Admitted | Resumed
NodeListener = Callable[[NodeNews], None]


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

    def subscribe_nodes(self, listener: NodeListener) -> None:
        """Call `listener` on what other nodes say of connections."""
        ...

    def publish_to_nodes(self, news: Cut | Admitted) -> None:
        """Tell the other nodes, not this one. Never waits, never fails; may be lost."""
        ...

    async def start(self) -> None:
        """Begin to speak with other nodes. Idempotent."""
        ...

    async def close(self) -> None:
        """Say what waits to be said, then fall silent. Idempotent."""
        ...


@final
class LocalBus:
    """Hints within one process, which is the only one."""

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

    def publish_to_all(self) -> None:
        """Send a hint to every device that listens: what other nodes said may have been lost."""
        for address in list(self._listeners):
            self.publish(address)

    def subscribe_nodes(self, listener: NodeListener) -> None:
        pass

    def publish_to_nodes(self, news: Cut | Admitted) -> None:
        pass

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def subscribe_presence(self, listener: PresenceListener) -> Callable[[], None]:
        self._presence.append(listener)

        def unsubscribe() -> None:
            if listener in self._presence:
                self._presence.remove(listener)

        return unsubscribe

    def publish_presence(self, news: PresenceNews) -> None:
        for listener in list(self._presence):
            listener(news)
