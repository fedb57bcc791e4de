"""The guard around an application's Socket.IO: which raw sockets it ends, and that it leaves everything else alone."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import socketio
import websockets

from e2ee.wire.identifiers import DeviceAddress
from tests.contract.relay_world import PATIENT, FrameClient, eventually, within
from tests.contract.socketio_fixtures import open_site, patient_settings  # noqa: F401 - fixtures
from tests.contract.socketio_site import Site, close_code, hello_fields, opened
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.frames import Sent

# Short enough to wait for, long enough for a busy machine to join a namespace in.
IMPATIENT = pytest.mark.parametrize("settings", [replace(PATIENT, hello_timeout=0.5)], ids=["impatient"])


@IMPATIENT
async def test_a_socket_that_joins_nothing_is_cut(site: Site) -> None:
    assert await close_code(await site.raw()) == CloseCode.TIMEOUT


@IMPATIENT
async def test_a_socket_whose_connect_was_refused_is_cut(site: Site) -> None:
    connection = await site.raw()
    await connection.send("40/no-such-namespace,")
    assert str(await connection.recv()).startswith("44/no-such-namespace,")
    assert await close_code(connection) == CloseCode.TIMEOUT


@IMPATIENT
async def test_a_socket_that_joins_the_relay_and_says_no_hello_is_cut(site: Site) -> None:
    connection = await site.joined("/e2ee")
    assert '"hello_timeout"' in str(await connection.recv())
    assert await close_code(connection) == CloseCode.TIMEOUT


@IMPATIENT
async def test_a_socket_that_left_its_last_namespace_is_cut(site: Site) -> None:
    connection = await site.joined("/")
    assert await close_code(await site.raw()) == CloseCode.TIMEOUT  # the deadline of joining is over
    await connection.send("41")
    assert await close_code(connection) == CloseCode.TIMEOUT


@IMPATIENT
async def test_a_socket_of_the_host_is_left_alone(site: Site) -> None:
    host = await site.joined("/")
    assert await close_code(await site.raw()) == CloseCode.TIMEOUT  # it came later, and is gone
    await host.send('4217["shout","still here"]')
    assert await host.recv() == '4317["STILL HERE"]'
    await host.close()


async def test_a_revoked_device_loses_its_raw_socket(site: Site) -> None:
    bob = await site.world.device("bob")
    connection = await site.said_hello(bob)
    site.world.relay.cut(bob)
    assert '"device_revoked"' in str(await connection.recv())
    assert await close_code(connection) == CloseCode.REVOKED


async def test_a_revoked_device_keeps_the_hosts_namespace_on_a_shared_socket(site: Site) -> None:
    bob = await site.world.device("bob")
    connection = await site.said_hello(bob, "/")
    site.world.relay.cut(bob)
    assert '"device_revoked"' in str(await connection.recv())
    assert await connection.recv() == "41/e2ee,"
    await connection.send('421["shout","still here"]')
    assert await connection.recv() == '431["STILL HERE"]'
    await connection.close()


async def test_a_peer_that_stops_reading_is_cut_and_forgotten(tmp_path: Path) -> None:
    settings = replace(PATIENT, send_timeout=0.5, close_timeout=0.1)
    async with opened(tmp_path, settings) as site:
        alice, bob = await site.world.device("alice"), await site.world.device("bob")
        connection = await site.said_hello(bob)
        connection.transport.pause_reading()
        sender = FrameClient(site.world, alice)
        await sender.online()
        for _ in range(150):
            sender.post(bob, bytes(90_000))
            await sender.next(Sent)
            if not site.world.relay.is_live(bob):
                break
        await eventually(lambda: not site.world.relay.is_live(bob))
        await eventually(lambda: not site.server.server_state.tasks)
        await eventually(lambda: not site.server.server_state.connections)
        connection.transport.abort()


@asynccontextmanager
async def library_client(site: Site, owner: DeviceAddress, *transports: str) -> AsyncIterator[asyncio.Queue[Any]]:
    """A client of the library, as a browser would be one: it says hello; yield what arrives."""
    http = aiohttp.ClientSession()
    client = socketio.AsyncClient(reconnection=False, handle_sigint=False, http_session=http)
    arrived: asyncio.Queue[Any] = asyncio.Queue()
    for event in ("hello", "error"):
        client.on(event, lambda fields, event=event: arrived.put_nowait((event, fields)), namespace="/e2ee")
    client.on("disconnect", lambda *_: arrived.put_nowait(("disconnect", None)), namespace="/e2ee")
    await client.connect(site.url, transports=list(transports), namespaces=["/e2ee"], wait_timeout=10)
    assert client.transport() == transports[-1]
    await client.emit("hello", hello_fields(site, owner), namespace="/e2ee")
    assert (await within(arrived.get()))[0] == "hello"
    yield arrived
    await client.eio.disconnect(abort=True)
    await http.close()


async def test_a_client_on_long_polling_is_served_and_ended(site: Site) -> None:
    bob = await site.world.device("bob")
    async with library_client(site, bob, "polling") as arrived:
        site.world.relay.cut(bob)
        event, error = await within(arrived.get())
        assert (event, error["code"]) == ("error", ErrorCode.DEVICE_REVOKED)
        assert (await within(arrived.get()))[0] == "disconnect"


async def test_an_upgraded_socket_is_found_and_cut(site: Site) -> None:
    bob = await site.world.device("bob")
    query = "/socket.io/?EIO=4&transport="
    async with httpx.AsyncClient(base_url=site.url) as http:
        sid = json.loads((await http.get(f"{query}polling")).text[1:])["sid"]
        await http.post(f"{query}polling&sid={sid}", content="40/e2ee,")
        assert (await http.get(f"{query}polling&sid={sid}")).text.startswith("40/e2ee,")
        connection = await websockets.connect(f"{site.url.replace('http', 'ws')}{query}websocket&sid={sid}")
        await connection.send("2probe")
        assert await connection.recv() == "3probe"
        await connection.send("5")
        await connection.send("42/e2ee," + json.dumps(["hello", hello_fields(site, bob)]))
        while not str(await connection.recv()).startswith("42/e2ee,"):
            pass
        site.world.relay.cut(bob)
        assert await close_code(connection) == CloseCode.REVOKED


@IMPATIENT
async def test_an_upgraded_socket_of_the_host_is_left_alone(site: Site) -> None:
    client = socketio.AsyncClient(reconnection=False, handle_sigint=False)
    await client.connect(site.url, wait_timeout=10)  # as browsers do: long-polling first, then upgraded
    assert client.transport() == "websocket"
    for _ in range(2):
        assert await close_code(await site.raw()) == CloseCode.TIMEOUT
    assert await client.call("shout", "still here") == "STILL HERE"
    await client.disconnect()


async def test_a_second_socket_that_claims_a_session_does_not_shield_the_first(site: Site) -> None:
    bob = await site.world.device("bob")
    sessions: list[str] = []
    connection = await site.raw(sessions)
    await connection.send("40/e2ee,")
    await connection.recv()
    await connection.send("42/e2ee," + json.dumps(["hello", hello_fields(site, bob)]))
    await connection.recv()
    url = f"{site.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket&sid={sessions[0]}"
    with pytest.raises(websockets.exceptions.InvalidStatus):
        await websockets.connect(url)
    site.world.relay.cut(bob)
    assert await close_code(connection) == CloseCode.REVOKED


async def test_plain_requests_pass_through(site: Site) -> None:
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{site.url}/page")).text == "the host's page"


async def test_a_pong_is_a_sign_of_life_of_the_relays_connection(site: Site) -> None:
    bob = await site.world.device("bob")
    socket = await site.said_hello(bob, "/")
    (connection,) = site.world.relay._connections
    site.world.clock.advance(15)
    assert connection.seen_at < site.world.clock()
    await socket.send("3")
    await eventually(lambda: connection.seen_at == site.world.clock())
    await socket.close()


async def test_what_the_host_is_sent_on_a_connection_of_its_own_is_no_sign_of_life_of_others(site: Site) -> None:
    bob = await site.world.device("bob")
    socket, other = await site.said_hello(bob), await site.joined("/")
    (connection,) = site.world.relay._connections
    site.world.clock.advance(15)
    await other.send("3")
    await other.send('4217["shout","heard"]')
    assert await other.recv() == '4317["HEARD"]'
    assert connection.seen_at < site.world.clock()
    await socket.close()
    await other.close()


async def test_a_post_is_a_sign_of_life_on_long_polling(site: Site) -> None:
    bob = await site.world.device("bob")
    async with httpx.AsyncClient(base_url=site.url) as http:
        greeting = await http.get("/socket.io/?EIO=4&transport=polling")
        url = f"/socket.io/?EIO=4&transport=polling&sid={json.loads(greeting.text[1:])['sid']}"
        await http.post(url, content="40/e2ee,")
        hello = json.dumps(["hello", hello_fields(site, bob)])
        await http.post(url, content=f"42/e2ee,{hello}")
        await eventually(lambda: site.world.relay.is_live(bob))
        (connection,) = site.world.relay._connections
        site.world.clock.advance(15)
        await http.post(url, content="3")
        assert connection.seen_at == site.world.clock()
        await http.post(url, content="41/e2ee,")
