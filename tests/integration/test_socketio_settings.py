"""What `attach` tells an operator about a Socket.IO server that does not suit."""

import logging
from pathlib import Path

import pytest
import socketio

from tests.contract.relay_world import EAGER_LINK, CursorCell, Peer, relay_world
from tests.contract.socketio_server import served
from transport_adapters.server.socketio import attach
from transport_adapters.socketio import SocketIoOptions, SocketIoTransport


async def test_settings_that_do_not_suit_are_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sio = socketio.AsyncServer(async_mode="asgi", ping_interval=25, max_http_buffer_size=100_000)
    async with relay_world(tmp_path) as world:
        attach(sio, world.relay)
    assert [record.getMessage() for record in caplog.records] == [
        "ping_interval is 25 s: presence needs at most 15 s",
        "max_http_buffer_size is 100000: envelopes need at least 131072 bytes",
    ]


async def test_a_missing_guard_is_warned_about_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with relay_world(tmp_path) as world:
        bob = await world.device("bob")
        sio = socketio.AsyncServer(async_mode="asgi", ping_interval=15)
        attach(sio, world.relay)

        async def token() -> str:
            return world.tokens.issue(bob)

        async with served(socketio.ASGIApp(sio)) as (url, _):
            for _ in range(2):
                cell = CursorCell()
                peer = Peer(
                    SocketIoTransport(url, token=token, cursor=cell, options=SocketIoOptions(link=EAGER_LINK)), cell
                )
                await peer.online()
                await peer.close()
            await world.relay.close()
        await sio.shutdown()
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "The ASGI application is not wrapped in guard(app, relay): sockets cannot be cut"
    ]
