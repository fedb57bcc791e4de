"""A host application with Socket.IO events of its own, the relay's namespace beside them, on a real server."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import socketio
import uvicorn
import websockets
from websockets.asyncio.client import ClientConnection

from e2ee.wire.identifiers import DeviceAddress
from tests.contract.relay_world import RelayWorld, eventually, relay_world, within
from tests.contract.socketio_server import served
from transport_adapters.frames import Hello, InstanceId
from transport_adapters.server.guard import guard
from transport_adapters.server.settings import RelaySettings
from transport_adapters.server.socketio import attach


@dataclass
class Site:
    """A host application with its own events, and the relay's namespace beside them."""

    world: RelayWorld
    url: str
    server: uvicorn.Server
    sio: socketio.AsyncServer

    def socket_url(self, query: str = "EIO=4&transport=websocket") -> str:
        return f"{self.url.replace('http', 'ws')}/socket.io/?{query}"

    async def raw(self, sessions: list[str] | None = None) -> ClientConnection:
        """Open an Engine.IO WebSocket, and say nothing; add its session id to `sessions`."""
        connection = await websockets.connect(self.socket_url(), ping_interval=None)
        greeting = str(await connection.recv())
        assert greeting.startswith("0{")
        if sessions is not None:
            sessions.append(json.loads(greeting[1:])["sid"])
        return connection

    async def joined(self, *namespaces: str) -> ClientConnection:
        connection = await self.raw()
        for namespace in namespaces:
            prefix = "" if namespace == "/" else f"{namespace},"
            await connection.send(f"40{prefix}")
            assert str(await connection.recv()).startswith(f"40{prefix}")
        return connection

    async def said_hello(self, owner: DeviceAddress, *namespaces: str) -> ClientConnection:
        connection = await self.joined(*namespaces, "/e2ee")
        await connection.send("42/e2ee," + json.dumps(["hello", hello_fields(self, owner)]))
        assert str(await connection.recv()).startswith('42/e2ee,["hello"')
        return connection

    async def ends(self, connection: ClientConnection) -> None:
        """Wait until a connection has ended, and the server holds nothing of it or of any other."""
        await within(connection.wait_closed())
        await eventually(lambda: not self.sio.eio.sockets and not self.world.relay._connections)


def hello_fields(site: Site, owner: DeviceAddress) -> dict[str, Any]:
    token = site.world.tokens.issue(owner)
    return Hello(token, InstanceId(bytes(16)), 1, 0, 0, 1_000, 1 << 30).to_fields()


async def close_code(connection: ClientConnection) -> int | None:
    await within(connection.wait_closed())
    return connection.close_code


@asynccontextmanager
async def opened(directory: Path, settings: RelaySettings) -> AsyncIterator[Site]:
    sio = socketio.AsyncServer(async_mode="asgi", ping_interval=15)

    @sio.event
    async def connect(_sid: str, _environ: Any, _auth: Any = None) -> None:
        pass

    @sio.event
    async def shout(_sid: str, text: str) -> str:
        return text.upper()

    async def page(scope: Any, _receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the host's page"})

    async with relay_world(directory, settings) as world:
        attach(sio, world.relay)
        app = guard(socketio.ASGIApp(sio, page), world.relay)
        async with served(app) as (url, server):
            yield Site(world, url, server, sio)
            await world.relay.close()
        await sio.shutdown()
