"""The Socket.IO client against servers that are late, odd, or protected by TLS."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import socketio

from tests.certificates import make_certificate
from tests.contract.relay_world import EAGER_LINK, CursorCell, Peer, RelayWorld, eventually, relay_world
from tests.contract.socketio_server import served
from transport_adapters.base import InsecureUrlError
from transport_adapters.server.guard import guard
from transport_adapters.server.socketio import attach
from transport_adapters.socketio import SocketIoOptions, SocketIoTransport


@dataclass
class Alice:
    """One registered device, and how often its client asked for a token: once per attempt to connect."""

    world: RelayWorld
    attempts: int = 0

    def client(self, url: str, tls: ssl.SSLContext | None = None) -> Peer:
        async def token() -> str:
            self.attempts += 1
            return self.world.tokens.issue(self.owner)

        cell = CursorCell()
        options = SocketIoOptions(tls=tls, link=EAGER_LINK)
        return Peer(SocketIoTransport(url, token=token, cursor=cell, options=options), cell)

    async def register(self) -> None:
        self.owner = await self.world.device("alice")

    def app(self) -> Any:
        sio = socketio.AsyncServer(async_mode="asgi", ping_interval=15)
        attach(sio, self.world.relay)
        return guard(socketio.ASGIApp(sio), self.world.relay)


@pytest.fixture
async def alice(tmp_path: Path) -> AsyncIterator[Alice]:
    async with relay_world(tmp_path) as world:
        alice = Alice(world)
        await alice.register()
        yield alice


async def test_a_server_that_comes_up_late_is_found(alice: Alice) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    client = alice.client(f"http://127.0.0.1:{port}")
    await eventually(lambda: alice.attempts >= 3)
    async with served(alice.app(), port=port):
        await client.online()
        await client.close()
        await alice.world.relay.close()


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", bytes(1000)],
)
async def test_a_server_that_speaks_something_else_is_tried_again(alice: Alice, answer: bytes) -> None:
    async def odd(reader: Any, writer: Any) -> None:
        await reader.read(100)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(odd, "127.0.0.1", 0) as server:
        client = alice.client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await eventually(lambda: alice.attempts >= 3)
        assert not client.outcome.done()
        await client.close()


@pytest.mark.parametrize("first", ["", "9junk", "0[]", "0{}", "4", "\u0000", '0{"sid":1}'])
async def test_a_websocket_that_does_not_open_engine_io_is_tried_again(alice: Alice, first: str) -> None:
    async def odd(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": first})
        await send({"type": "websocket.close"})

    async with served(odd) as (url, _):
        client = alice.client(url)
        await eventually(lambda: alice.attempts >= 3)
        assert not client.outcome.done()
        await client.close()


async def test_tls_is_verified(alice: Alice, tmp_path: Path) -> None:
    certificate, key, _ = make_certificate(tmp_path)
    async with served(alice.app(), ssl_certfile=str(certificate), ssl_keyfile=str(key)) as (url, _):
        assert url.startswith("https://")
        stranger = alice.client(url)
        await eventually(lambda: alice.attempts >= 3)
        assert not alice.world.relay.is_live(alice.owner)
        await stranger.close()
        client = alice.client(url, ssl.create_default_context(cafile=str(certificate)))
        await client.online()
        await client.close()
        await alice.world.relay.close()


async def test_a_plaintext_url_is_refused_before_anything_is_sent() -> None:
    async def never() -> Any:
        raise AssertionError("asked for a secret")

    with pytest.raises(InsecureUrlError):
        SocketIoTransport("http://chat.example", token=never, cursor=never)
