"""A transport within one process, for tests and examples: the real relay, no network.

Owns: passing frames between a link and a relay's connection, as the fields that would cross a wire.
Does not know about: how either side works.
"""

from typing import Protocol, final

from transport_adapters.codes import CloseCode
from transport_adapters.frames import ClientFrame, ServerFrame
from transport_adapters.link import CursorSource, Link, LinkOptions, LinkTransport, Receiver, TokenSource


class RelayConnection(Protocol):
    """The relay's end of one connection."""

    def receive(self, event: object, fields: object) -> None: ...

    def disconnected(self) -> None: ...


class MemoryRelay(Protocol):
    """A relay in this process: `transport_adapters.server.relay.Relay`."""

    def connect(self, channel: "MemoryChannel") -> RelayConnection: ...


@final
class MemoryTransport(LinkTransport):
    """Implements `EnvelopeTransport` against a relay in the same event loop."""

    def __init__(
        self, relay: MemoryRelay, *, token: TokenSource, cursor: CursorSource, options: LinkOptions | None = None
    ) -> None:
        self._relay = relay
        super().__init__(Link(self._dial, token, cursor, options or LinkOptions()))

    async def _dial(self, receiver: Receiver) -> "_MemoryWire":
        return _MemoryWire(self._relay.connect(MemoryChannel(receiver)))


@final
class MemoryChannel:
    """What the relay writes to."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def send(self, frame: ServerFrame) -> None:
        self._receiver.frame(frame.EVENT, frame.to_fields())

    async def close(self, _code: CloseCode) -> None:
        self._receiver.lost()


@final
class _MemoryWire:
    def __init__(self, connection: RelayConnection) -> None:
        self._connection = connection

    async def write(self, frame: ClientFrame) -> None:
        self._connection.receive(frame.EVENT, frame.to_fields())

    async def close(self) -> None:
        self._connection.disconnected()
