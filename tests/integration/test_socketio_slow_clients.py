"""Clients that do not read: what the server holds for one is bounded, it is cut, loses nothing, and disturbs nobody."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import socketio
import websockets
from websockets.asyncio.client import ClientConnection

from e2ee.wire.identifiers import DeviceAddress
from tests.contract.relay_world import (
    EAGER_LINK,
    PATIENT,
    CursorCell,
    Peer,
    RelayWorld,
    eventually,
    relay_world,
    within,
)
from tests.contract.socketio_server import served
from transport_adapters.base import PresenceState
from transport_adapters.codes import CloseCode
from transport_adapters.fields import MAX_U32
from transport_adapters.frames import Credit, Hello, InstanceId, Presence
from transport_adapters.server.guard import guard
from transport_adapters.server.settings import Rate
from transport_adapters.server.socketio import attach
from transport_adapters.socketio import SocketIoOptions, SocketIoTransport

MOST_QUEUED = 256 * 1024
MOST_PACKETS = 64
"""A packet of a few bytes costs some hundred in memory."""
BODY = 20_000
STORED = 200
SETTINGS = replace(PATIENT, send_timeout=2, close_timeout=0.1, send_rate=Rate(1_000, 100_000))

Habit = Callable[[ClientConnection], Coroutine[Any, Any, None]]


@dataclass
class Site:
    """A server, and the codes with which it ended WebSockets."""

    world: RelayWorld
    sio: socketio.AsyncServer
    url: str = ""
    codes: list[int] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    def app(self) -> Any:
        guarded = guard(socketio.ASGIApp(self.sio), self.world.relay)

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            async def noted(message: Any) -> None:
                if message["type"] == "websocket.close":
                    self.codes.append(message.get("code", 1000))
                await send(message)

            await guarded(scope, receive, noted)

        return watched

    def reader(self, owner: DeviceAddress) -> Peer:
        """A client as it should be."""

        async def token() -> str:
            return self.world.tokens.issue(owner)

        cell = CursorCell()
        options = SocketIoOptions(link=EAGER_LINK)
        return Peer(SocketIoTransport(self.url, token=token, cursor=cell, options=options), cell)

    async def unread(self, owner: DeviceAddress) -> tuple[ClientConnection, "Held"]:
        """Say hello with all the credit there is, and read nothing from then on."""
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        small.setblocking(False)
        host, port = self.url.removeprefix("http://").split(":")
        await asyncio.get_running_loop().sock_connect(small, (host, int(port)))
        url = f"ws://{host}:{port}/socket.io/?EIO=4&transport=websocket"
        client = await websockets.connect(url, sock=small, ping_interval=None, compression=None)
        engine_id = json.loads(str(await client.recv())[1:])["sid"]
        await client.send("40/e2ee,")
        await client.recv()
        client.transport.pause_reading()
        hello = Hello(self.world.tokens.issue(owner), InstanceId(bytes(16)), 1, 0, 0, MAX_U32, MAX_U32)
        await client.send(event(hello))
        await eventually(lambda: self.world.relay.is_live(owner))
        return client, Held(self, owner, engine_id)


@dataclass
class Held:
    """What the process holds for one connection, looked at again and again."""

    site: Site
    owner: DeviceAddress
    engine_id: str
    peak: int = 0
    deepest: int = 0
    """Packets in the Engine.IO queue, at most."""

    async def watch(self) -> None:
        """Look until the connection is over and its Engine.IO session is forgotten."""
        connection = self.site.world.relay._live[self.owner].connection
        while (session := self.site.sio.eio.sockets.get(self.engine_id)) is not None:
            packets = [each for each in session.queue._queue if each is not None]
            waiting = sum(len(each.data) for each in packets if each.data is not None)
            self.peak = max(self.peak, waiting + (0 if connection.closed.is_set() else connection.queued))
            self.deepest = max(self.deepest, len(packets))
            await asyncio.sleep(0.001)


def event(frame: Any, *, answered: bool = False) -> str:
    """Encode a frame without an envelope; `answered` asks Socket.IO for an acknowledgement of its own."""
    return f"42/e2ee,{7 if answered else ''}" + json.dumps([frame.EVENT, frame.to_fields()])


async def silence(_client: ClientConnection) -> None:
    pass


async def pong(client: ClientConnection) -> None:
    await client.send("3")
    await asyncio.sleep(0)  # in one event loop with the server: leave it its turn


async def pongs(client: ClientConnection) -> None:
    while True:
        await pong(client)


async def answered_frames(client: ClientConnection) -> None:
    """Frames that the relay answers with nothing, and Socket.IO with an acknowledgement."""
    while True:
        await pong(client)
        await client.send(event(Credit(1, 1), answered=True))
        await client.send(event(Presence(PresenceState.AWAY), answered=True))


async def upgrades(client: ClientConnection) -> None:
    """Engine.IO answers each with a packet."""
    while True:
        await pong(client)
        await client.send("5")


async def long_namespaces(client: ClientConnection) -> None:
    """Socket.IO refuses each by name."""
    while True:
        await pong(client)
        await client.send(f"40/{'x' * 250},")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with relay_world(tmp_path, SETTINGS) as world:
        site = Site(world, socketio.AsyncServer(async_mode="asgi", ping_interval=15))
        attach(site.sio, world.relay)
        async with served(site.app()) as (site.url, _server):
            yield site
            await world.relay.close()
        await site.sio.shutdown()


@asynccontextmanager
async def doing(habit: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Keep a client at its habit; the server may end its connection under it."""
    task = asyncio.create_task(habit)
    try:
        yield
    finally:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        assert ended is None or isinstance(ended, asyncio.CancelledError | websockets.ConnectionClosed), ended


async def talk(site: Site, sender: Peer, alice: DeviceAddress, recipient: Peer, carol: DeviceAddress) -> None:
    sent = site.world.outgoing(alice, carol)
    await within(sender.transport.send(sent))
    delivery = await recipient.next()
    assert delivery.envelope == sent.envelope
    await recipient.ack(delivery)


@pytest.mark.parametrize("habit", [silence, pongs, answered_frames, upgrades, long_namespaces])
async def test_a_client_that_never_reads_is_bounded_cut_and_loses_nothing(site: Site, habit: Habit) -> None:
    alice, bob, carol = [await site.world.device(name) for name in ("alice", "bob", "carol")]
    sender, recipient = site.reader(alice), site.reader(carol)
    await sender.online()
    await recipient.online()
    waiting = [site.world.outgoing(alice, bob, bytes(BODY)) for _ in range(STORED)]
    for outgoing in waiting:
        await within(sender.transport.send(outgoing))
    client, held = await site.unread(bob)
    watching = asyncio.create_task(held.watch())
    async with doing(habit(client)):
        while site.world.relay.is_live(bob):
            await talk(site, sender, alice, recipient, carol)
        await within(watching)
    assert BODY < held.peak <= MOST_QUEUED
    assert held.deepest <= MOST_PACKETS
    assert site.codes == [CloseCode.TOO_FAST_OR_SLOW]
    client.transport.abort()
    await talk(site, sender, alice, recipient, carol)

    again = site.reader(bob)
    arrived = set()
    for _ in waiting:
        delivery = await again.next()
        arrived.add(delivery.envelope)
        await again.ack(delivery)
    assert arrived == {each.envelope for each in waiting}
    for peer in (sender, recipient, again):
        await peer.close()
