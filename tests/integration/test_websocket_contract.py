"""WebSocket keeps the contract of all transports, over real sockets."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import uvicorn
from starlette.applications import Starlette

from tests.contract.relay_world import RelayWorld
from tests.contract.socketio_server import break_connections, served
from tests.contract.transport_contract import Carrier, TransportContract
from transport_adapters.base import EnvelopeTransport
from transport_adapters.link import CursorSource, LinkOptions, TokenSource
from transport_adapters.server.mount import endpoints
from transport_adapters.websocket import WebSocketOptions, WebSocketTransport


class WebSocketCarrier:
    def __init__(self, url: str, server: uvicorn.Server) -> None:
        self._url = url
        self._server = server

    def transport(self, token: TokenSource, cursor: CursorSource, options: LinkOptions) -> EnvelopeTransport:
        return WebSocketTransport(self._url, token=token, cursor=cursor, options=WebSocketOptions(link=options))

    async def drop(self) -> None:
        break_connections(self._server)


class TestWebSocketTransport(TransportContract):
    def carry(self, world: RelayWorld) -> AbstractAsyncContextManager[Carrier]:
        @asynccontextmanager
        async def carried() -> AsyncIterator[Carrier]:
            async with served(Starlette(routes=endpoints(world.relay))) as (url, server):
                yield WebSocketCarrier(url, server)
                await world.relay.close()

        return carried()
