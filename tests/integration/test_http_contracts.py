"""Server-sent events and long-polling keep the contract of all transports, over real sockets."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import uvicorn
from starlette.applications import Starlette

from tests.contract.relay_world import RelayWorld
from tests.contract.socketio_server import break_connections, served
from tests.contract.transport_contract import Carrier, TransportContract
from transport_adapters.base import EnvelopeTransport
from transport_adapters.http_wire import HttpOptions
from transport_adapters.link import CursorSource, LinkOptions, TokenSource
from transport_adapters.longpoll import LongPollTransport
from transport_adapters.server.mount import endpoints
from transport_adapters.sse import SseTransport


@dataclass
class HttpCarrier:
    make: Callable[..., EnvelopeTransport]
    url: str
    server: uvicorn.Server

    def transport(self, token: TokenSource, cursor: CursorSource, options: LinkOptions) -> EnvelopeTransport:
        return self.make(self.url, token=token, cursor=cursor, options=HttpOptions(link=options))

    async def drop(self) -> None:
        break_connections(self.server)


@asynccontextmanager
async def carried(world: RelayWorld, make: Callable[..., EnvelopeTransport]) -> AsyncIterator[Carrier]:
    async with served(Starlette(routes=endpoints(world.relay))) as (url, server):
        yield HttpCarrier(make, url, server)
        await world.relay.close()


class TestSseTransport(TransportContract):
    def carry(self, world: RelayWorld) -> AbstractAsyncContextManager[Carrier]:
        return carried(world, SseTransport)


class TestLongPollTransport(TransportContract):
    def carry(self, world: RelayWorld) -> AbstractAsyncContextManager[Carrier]:
        return carried(world, LongPollTransport)
