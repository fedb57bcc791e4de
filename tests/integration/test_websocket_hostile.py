"""Slow, silent and hostile peers on the relay's WebSocket: bounded, ended with the right code."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import websockets
from starlette.applications import Starlette
from websockets.asyncio.client import ClientConnection

from e2ee.limits import MAX_ENVELOPE
from e2ee.wire.codec import to_base64url
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
from transport_adapters.codes import CloseCode
from transport_adapters.fields import MAX_U32
from transport_adapters.frames import Hello, InstanceId, Pong
from transport_adapters.server.mount import endpoints
from transport_adapters.server.settings import Rate, RelaySettings
from transport_adapters.text import MAX_TEXT, encode_frame
from transport_adapters.websocket import WebSocketOptions, WebSocketTransport

MOST_QUEUED = 256 * 1024
STORED_BYTES = 5_000_000
"""More than the kernel takes off the server's hands."""


@dataclass
class Site:
    world: RelayWorld
    url: str
    server: uvicorn.Server

    async def raw(self, **options: Any) -> ClientConnection:
        url = f"{self.url.replace('http', 'ws')}/e2ee/ws"
        return await websockets.connect(url, ping_interval=None, compression=None, max_size=None, **options)

    async def said_hello(self, owner: DeviceAddress) -> ClientConnection:
        client = await self.raw()
        await client.send(self.hello(owner))
        assert await next_frame(client, "hello")
        return client

    def hello(self, owner: DeviceAddress) -> str:
        return encode_frame(Hello(self.world.tokens.issue(owner), InstanceId(bytes(16)), 1, 0, 0, MAX_U32, MAX_U32))

    def reader(self, owner: DeviceAddress, **options: Any) -> Peer:
        async def token() -> str:
            return self.world.tokens.issue(owner)

        cell = CursorCell()
        link = replace(EAGER_LINK, **options)
        return Peer(WebSocketTransport(self.url, token=token, cursor=cell, options=WebSocketOptions(link=link)), cell)

    async def unread(self, owner: DeviceAddress) -> ClientConnection:
        """Say hello with all the credit there is, and read nothing from then on."""
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        small.setblocking(False)
        host, port = self.url.removeprefix("http://").split(":")
        await asyncio.get_running_loop().sock_connect(small, (host, int(port)))
        client = await self.raw(sock=small)
        client.transport.pause_reading()
        await client.send(self.hello(owner))
        return client

    def held(self, owner: DeviceAddress) -> int:
        """Count what the process holds for a device's connection, and for no other."""
        live = self.world.relay._live.get(owner)
        buffers = [each.transport.get_write_buffer_size() for each in self.server.server_state.connections]
        return max(buffers, default=0) + (0 if live is None else live.connection.queued)


async def next_frame(client: ClientConnection, name: str) -> dict[str, Any]:
    while True:
        event, fields = json.loads(await within(client.recv()))
        if event == name:
            return dict(fields)


async def ended(client: ClientConnection) -> int | None:
    await within(client.wait_closed())
    return client.close_code


@pytest.fixture
def settings() -> RelaySettings:
    return PATIENT


@pytest.fixture
async def site(tmp_path: Path, settings: RelaySettings) -> AsyncIterator[Site]:
    async with (
        relay_world(tmp_path, settings) as world,
        served(Starlette(routes=endpoints(world.relay))) as (url, server),
    ):
        yield Site(world, url, server)
        await world.relay.close()


@pytest.mark.parametrize("body", [20_000, MAX_ENVELOPE - 100])
@pytest.mark.parametrize("settings", [replace(PATIENT, send_timeout=1, close_timeout=0.1, send_rate=Rate(1e3, 1000))])
async def test_a_client_that_never_reads_is_bounded_cut_and_loses_nothing(site: Site, body: int) -> None:
    alice, bob, carol = [await site.world.device(name) for name in ("alice", "bob", "carol")]
    sender, recipient = site.reader(alice), site.reader(carol)
    await sender.online()
    await recipient.online()
    waiting = [site.world.outgoing(alice, bob, bytes(body)) for _ in range(STORED_BYTES // body)]
    for outgoing in waiting:
        await within(sender.transport.send(outgoing))
    client = await site.unread(bob)
    await eventually(lambda: site.world.relay.is_live(bob))
    peak = 0
    while site.world.relay.is_live(bob):
        sent = site.world.outgoing(alice, carol)
        await within(sender.transport.send(sent))
        peak = max(peak, site.held(bob))
        delivery = await recipient.next()
        assert delivery.envelope == sent.envelope
        await recipient.ack(delivery)
        peak = max(peak, site.held(bob))
    assert body < peak <= MOST_QUEUED
    await eventually(lambda: len(site.server.server_state.connections) == 2)
    client.transport.abort()

    again = site.reader(bob)
    arrived = set()
    for _ in waiting:
        delivery = await again.next()
        arrived.add(delivery.envelope)
        await again.ack(delivery)
    assert arrived == {each.envelope for each in waiting}
    for peer in (sender, recipient, again):
        await peer.close()


@pytest.mark.parametrize("settings", [replace(PATIENT, hello_timeout=0.1)])
async def test_a_client_that_says_nothing_is_ended(site: Site) -> None:
    client = await site.raw()
    assert (await next_frame(client, "error"))["code"] == "hello_timeout"
    assert await ended(client) == CloseCode.TIMEOUT


@pytest.mark.parametrize("settings", [replace(PATIENT, ping_interval=0.05, silence_timeout=0.3)])
async def test_a_client_that_answers_no_ping_is_ended(site: Site) -> None:
    client = await site.said_hello(await site.world.device("bob"))
    assert await next_frame(client, "ping") == {}
    assert (await next_frame(client, "error"))["code"] == "silent"
    assert await ended(client) == CloseCode.TIMEOUT


@pytest.mark.parametrize("settings", [replace(PATIENT, ping_interval=0.1, silence_timeout=1.5)])
async def test_a_client_that_answers_pings_stays(site: Site) -> None:
    client = await site.said_hello(await site.world.device("bob"))
    for _ in range(20):
        await next_frame(client, "ping")
        await client.send(encode_frame(Pong()))
    assert site.world.relay.is_live(await site.world.device("bob"))
    await client.close()


async def test_a_server_that_says_nothing_is_given_up_and_dialled_again(site: Site) -> None:
    peer = site.reader(await site.world.device("bob"), silence_timeout=0.1)
    for _ in range(3):
        await peer.online()
    await peer.close()


@pytest.mark.parametrize("settings", [replace(PATIENT, ping_interval=0.05)])
async def test_pings_keep_a_quiet_connection(site: Site) -> None:
    peer = site.reader(await site.world.device("bob"), silence_timeout=2)
    await peer.online()
    number = len(site.world.tokens.issued)
    alice = await site.world.device("alice")
    sender = site.reader(alice)
    await sender.online()
    for _ in range(3):
        await within(sender.transport.send(site.world.outgoing(alice, alice)))
    assert len(site.world.tokens.issued) == number + 1
    await sender.close()
    await peer.close()


def large_send(size: int) -> str:
    claim = {"seq": 1, "hash": "00" * 32}
    envelope = to_base64url(bytes(size))
    fields = {"counter": 1, "recipient_list": claim, "sender_list": claim, "envelope": envelope}
    return json.dumps(["send", fields])


@pytest.mark.parametrize("text", [large_send(MAX_ENVELOPE + 1), "x" * (MAX_TEXT + 1)])
async def test_an_oversized_frame_ends_its_connection(site: Site, text: str) -> None:
    client = await site.said_hello(await site.world.device("bob"))
    await client.send(text)
    assert (await next_frame(client, "error"))["code"] == "too_large"
    assert await ended(client) == CloseCode.TOO_LARGE


GARBAGE = [
    b"",
    b'["ack", {}]',
    "",
    "{}",
    "[]",
    '["hello"]',
    '["hello", {}, {}]',
    "[" * 100_000,
    "9" * 100_000,
    '["credit", {"messages": NaN, "bytes": 1}]',
    '["credit", {"messages": 1e999, "bytes": 1}]',
    json.dumps(["send", {"envelope": "not base64url!"}]),
    json.dumps(["send", {"envelope": "AB"}]),  # not canonical
    json.dumps([["hello"], {}]),
    json.dumps(["pong", {"more": 1}]),
    json.dumps(["deliver", {}]),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=[repr(each)[:30] for each in GARBAGE])
async def test_garbage_is_named_and_recurring_garbage_ends_the_connection(site: Site, garbage: str | bytes) -> None:
    client = await site.said_hello(await site.world.device("bob"))
    for _ in range(9):
        await client.send(garbage)
        assert (await next_frame(client, "error"))["code"] == "malformed_frame"
    await client.send(garbage)
    assert (await next_frame(client, "error"))["code"] == "flooding"
    assert await ended(client) == CloseCode.TOO_FAST_OR_SLOW


async def test_a_second_hello_is_refused_and_changes_nothing(site: Site) -> None:
    bob, carol = await site.world.device("bob"), await site.world.device("carol")
    client = await site.said_hello(bob)
    await client.send(site.hello(carol))
    assert (await next_frame(client, "error"))["code"] == "malformed_frame"
    assert site.world.relay.is_live(bob)
    assert not site.world.relay.is_live(carol)
    await client.close()


# Few frames, because client and server take turns here: a fast database would keep up with more for a minute.
@pytest.mark.parametrize("settings", [replace(PATIENT, max_inbound_frames=4)])
async def test_frames_without_end_are_a_flood(site: Site) -> None:
    client = await site.said_hello(await site.world.device("bob"))
    ack = json.dumps(["ack", {"epoch": 1, "ranges": [[n, n] for n in range(1, 1_001)]}])

    async def flood() -> None:
        while True:
            await client.send(ack)

    flooding = asyncio.create_task(flood())
    while (await next_frame(client, "error"))["code"] != "flooding":
        pass
    assert await ended(client) == CloseCode.TOO_FAST_OR_SLOW
    with pytest.raises(websockets.ConnectionClosed):
        await within(flooding)


async def test_a_redirect_is_not_followed(site: Site) -> None:
    asked = []

    async def elsewhere(scope: Any, _receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        headers = [(b"location", f"{site.url.replace('http', 'ws')}/e2ee/ws".encode())]
        await send({"type": "websocket.http.response.start", "status": 307, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b""})

    async def token() -> str:
        return site.world.tokens.issue(bob)

    bob = await site.world.device("bob")
    async with served(elsewhere) as (url, _):
        cell = CursorCell()
        peer = Peer(WebSocketTransport(url, token=token, cursor=cell, options=WebSocketOptions(link=EAGER_LINK)), cell)
        await eventually(lambda: len(asked) >= 3)
        assert peer.connected.empty()
        await peer.close()
