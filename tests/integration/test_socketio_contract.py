"""Socket.IO keeps the contract of all transports, over real sockets."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import socketio
import uvicorn

from tests.contract.relay_world import RelayWorld
from tests.contract.socketio_server import break_connections, served
from tests.contract.transport_contract import Carrier, TransportContract
from transport_adapters.base import EnvelopeTransport
from transport_adapters.link import CursorSource, LinkOptions, TokenSource
from transport_adapters.server.guard import guard
from transport_adapters.server.socketio import attach
from transport_adapters.socketio import SocketIoOptions, SocketIoTransport


class SocketIoCarrier:
    def __init__(self, url: str, server: uvicorn.Server) -> None:
        self._url = url
        self._server = server

    def transport(self, token: TokenSource, cursor: CursorSource, options: LinkOptions) -> EnvelopeTransport:
        return SocketIoTransport(self._url, token=token, cursor=cursor, options=SocketIoOptions(link=options))

    async def drop(self) -> None:
        break_connections(self._server)


class TestSocketIoTransport(TransportContract):
    def carry(self, world: RelayWorld) -> AbstractAsyncContextManager[Carrier]:
        @asynccontextmanager
        async def carried() -> AsyncIterator[Carrier]:
            sio = socketio.AsyncServer(async_mode="asgi", ping_interval=15)
            attach(sio, world.relay)
            async with served(guard(socketio.ASGIApp(sio), world.relay)) as (url, server):
                yield SocketIoCarrier(url, server)
                await world.relay.close()
            await sio.shutdown()

        return carried()
