"""A thousand connections on one process, half of them Socket.IO and half WebSocket; one of them never reads."""

import asyncio
import json
import resource
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import socketio
import uvicorn
import websockets
from starlette.applications import Starlette
from websockets.asyncio.client import ClientConnection

from e2ee.wire.codec import to_base64url
from e2ee.wire.identifiers import DeviceAddress
from tests.contract.relay_world import PATIENT, FrameClient, RelayWorld, eventually, relay_world, within
from tests.contract.socketio_server import served
from transport_adapters.frames import Hello, InstanceId, Sent
from transport_adapters.server.guard import guard
from transport_adapters.server.mount import endpoints
from transport_adapters.server.settings import Rate
from transport_adapters.server.socketio import attach

CONNECTIONS = 1_000
MOST_QUEUED = 256 * 1024
AT_ONCE = 50
"""Handshakes under way: the listener's own queue is bounded."""


@pytest.fixture(autouse=True)
def many_files() -> None:
    """Both ends of each connection are files of this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8_192), hard))


@dataclass
class Site:
    world: RelayWorld
    url: str
    server: uvicorn.Server

    def hello(self, owner: DeviceAddress) -> dict[str, Any]:
        return Hello(self.world.tokens.issue(owner), InstanceId(bytes(16)), 1, 0, 0, 1_000, 1 << 30).to_fields()

    async def websocket(self, owner: DeviceAddress) -> ClientConnection:
        connection = await websockets.connect(f"{self.url}/e2ee/ws", ping_interval=None, compression=None)
        await connection.send(json.dumps(["hello", self.hello(owner)]))
        assert str(await connection.recv()).startswith('["hello"')
        return connection

    async def socketio(self, owner: DeviceAddress) -> ClientConnection:
        connection = await websockets.connect(
            f"{self.url}/socket.io/?EIO=4&transport=websocket", ping_interval=None, compression=None
        )
        assert str(await connection.recv()).startswith("0{")
        await connection.send("40/e2ee,")
        assert str(await connection.recv()).startswith("40/e2ee,")
        await connection.send("42/e2ee," + json.dumps(["hello", self.hello(owner)]))
        assert str(await connection.recv()).startswith('42/e2ee,["hello"')
        return connection

    async def never_reads(self, owner: DeviceAddress) -> asyncio.StreamWriter:
        """Say hello over WebSocket, with all the credit there is, and read nothing more."""
        host, port = self.url.removeprefix("ws://").split(":")
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        small.setblocking(False)
        await asyncio.get_running_loop().sock_connect(small, (host, int(port)))
        reader, writer = await asyncio.open_connection(sock=small, limit=1_024)
        key = "AAAAAAAAAAAAAAAAAAAAAA=="
        head = f"Host: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
        writer.write(f"GET /e2ee/ws HTTP/1.1\r\n{head}Sec-WebSocket-Version: 13\r\n\r\n".encode())
        await within(reader.readuntil(b"\r\n\r\n"))
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        text = json.dumps(["hello", self.hello(owner)]).encode()
        # Masked with zeros: the text as it is.
        writer.write(b"\x81\xfe" + len(text).to_bytes(2, "big") + bytes(4) + text)
        return writer


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    settings = replace(PATIENT, send_rate=Rate(1e6, 1_000_000))
    async with relay_world(tmp_path, settings) as world:
        sio = socketio.AsyncServer(async_mode="asgi", ping_interval=15)
        attach(sio, world.relay)
        app = guard(socketio.ASGIApp(sio, Starlette(routes=endpoints(world.relay))), world.relay)
        async with served(app) as (url, server):
            yield Site(world, url.replace("http", "ws"), server)
            await world.relay.close()


async def test_one_that_never_reads_costs_little_and_holds_nobody_up(site: Site) -> None:
    sender = FrameClient(site.world, await site.world.device("sender"))
    await sender.online()
    stuck = await site.world.device("stuck")
    for _ in range(40):
        sender.post(stuck, bytes(90_000))
        await sender.next(Sent)
    devices = [await site.world.device(f"user{number}") for number in range(CONNECTIONS)]
    gate = asyncio.Semaphore(AT_ONCE)

    async def connect(number: int) -> ClientConnection:
        async with gate:
            make = site.socketio if number % 2 else site.websocket
            return await make(devices[number])

    connections = await within(asyncio.gather(*map(connect, range(CONNECTIONS))), 90)
    writer = await site.never_reads(stuck)
    await eventually(lambda: site.world.relay.is_live(stuck))
    live = site.world.relay._live[stuck].connection
    await eventually(lambda: live.queued > 100_000)

    async def answered(number: int, envelope: bytes) -> None:
        if number % 2:
            assert str(await connections[number].recv()).startswith('451-/e2ee,["deliver"')
            assert await connections[number].recv() == envelope
        else:
            assert json.loads(await connections[number].recv())[1]["envelope"] == to_base64url(envelope)

    peak = 0
    for at in range(0, CONNECTIONS, AT_ONCE):
        sent = [sender.post(devices[number]) for number in range(at, at + AT_ONCE)]
        waiting = [answered(at + offset, outgoing.envelope) for offset, outgoing in enumerate(sent)]
        await within(asyncio.gather(*waiting), 60)
        buffered = max(each.transport.get_write_buffer_size() for each in site.server.server_state.connections)
        peak = max(peak, live.queued + buffered)
    assert site.world.relay.is_live(stuck), "and all that while the one that never reads was still there"
    assert 100_000 < peak <= MOST_QUEUED
    writer.transport.abort()
    await asyncio.gather(*(each.close() for each in connections))
