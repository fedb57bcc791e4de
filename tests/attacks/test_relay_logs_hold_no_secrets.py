"""Attack: reading the logs. No token, plaintext or ciphertext is logged at any level, on either side."""

import logging
from pathlib import Path

import pytest
import socketio

from tests.contract.relay_world import EAGER_LINK, CursorCell, FrameClient, Peer, relay_world, within
from tests.contract.socketio_server import served
from transport_adapters.codes import ErrorCode
from transport_adapters.server.guard import guard
from transport_adapters.server.socketio import attach
from transport_adapters.socketio import SocketIoOptions, SocketIoTransport

CIPHERTEXT = b"secret-ciphertext"


async def test_a_session_with_failures_logs_no_secret_at_any_level(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with relay_world(tmp_path) as world:
        alice, bob = await world.device("alice"), await world.device("bob")
        sio = socketio.AsyncServer(async_mode="asgi", ping_interval=15)
        attach(sio, world.relay)
        async with served(guard(socketio.ASGIApp(sio), world.relay)) as (url, _):
            peers = []
            for owner in (alice, bob):

                async def token(owner: object = owner) -> str:
                    return world.tokens.issue(alice if owner == alice else bob)

                cell = CursorCell()
                options = SocketIoOptions(link=EAGER_LINK)
                peers.append(Peer(SocketIoTransport(url, token=token, cursor=cell, options=options), cell))
                await peers[-1].online()
            await within(peers[0].transport.send(world.outgoing(alice, bob, CIPHERTEXT)))
            await peers[1].ack(await peers[1].next())
            world.contacts.refused.add(("alice", "bob"))
            await within(peers[0].transport.send(world.outgoing(alice, bob, CIPHERTEXT)))
            world.relay.cut(bob, ErrorCode.TOKEN_INVALID)
            await peers[1].online()
            for peer in peers:
                await peer.close()
            await world.relay.close()
        await sio.shutdown()
    assert caplog.records
    assert "secret" not in caplog.text


async def test_bad_frames_and_refused_tokens_log_no_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with relay_world(tmp_path) as world:
        client = FrameClient(world, await world.device("bob"))
        client.connection.receive("hello", {"token": "secret-token"})
        client.connection.receive("secret-event", "secret-fields")
        client.connection.receive("send", {"envelope": CIPHERTEXT})
        client.hello(token="secret-unknown-token")
        await client.closed()
        assert "secret" not in repr(client.frames)
        assert "secret" not in repr(client.connection)
    assert "secret" not in caplog.text


async def test_a_server_whose_loggers_would_print_tokens_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    talkative = logging.getLogger("tests.talkative")
    talkative.setLevel(logging.INFO)
    sio = socketio.AsyncServer(async_mode="asgi", ping_interval=15, engineio_logger=talkative)
    async with relay_world(tmp_path) as world:
        attach(sio, world.relay)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "logger or engineio_logger is on: at this level they print device tokens"
    ]
