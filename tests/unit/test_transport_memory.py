"""The in-process transport keeps the contract of all transports."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from tests.contract.relay_world import RelayWorld
from tests.contract.transport_contract import Carrier, TransportContract
from tests.databases import each_database  # noqa: F401 - a fixture
from transport_adapters.base import EnvelopeTransport
from transport_adapters.codes import CloseCode
from transport_adapters.link import CursorSource, LinkOptions, TokenSource
from transport_adapters.memory import MemoryChannel, MemoryTransport, RelayConnection
from transport_adapters.server.relay import Relay


class FailingWire:
    """A relay whose connections can be broken from both sides at once."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._ends: list[tuple[MemoryChannel, RelayConnection]] = []

    def connect(self, channel: MemoryChannel) -> RelayConnection:
        connection = self._relay.connect(channel)
        self._ends.append((channel, connection))
        return connection

    def transport(self, token: TokenSource, cursor: CursorSource, options: LinkOptions) -> EnvelopeTransport:
        return MemoryTransport(self, token=token, cursor=cursor, options=options)

    async def drop(self) -> None:
        ends, self._ends = self._ends, []
        for channel, connection in ends:
            connection.disconnected()
            await channel.close(CloseCode.DRAINING)


class TestMemoryTransport(TransportContract):
    def carry(self, world: RelayWorld) -> AbstractAsyncContextManager[Carrier]:
        @asynccontextmanager
        async def carried() -> AsyncIterator[Carrier]:
            yield FailingWire(world.relay)

        return carried()
