"""What the HTTP protocol under the application bounds and joins, whatever the application does."""

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest
import uvicorn
import websockets
from starlette.types import Receive, Scope, Send

from tests.contract.relay_world import eventually, within
from tests.contract.socketio_server import served
from transport_adapters.server import http_protocol
from transport_adapters.server.http_protocol import BoundedHttp, _Joining

LARGE = 8 << 20
"""Bytes that fit in no buffer of the kernel."""
PART = LARGE // 16
ASK = b"GET /%s HTTP/1.1\r\nHost: server\r\n\r\n"


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.send", "text": "heard"})
        await send({"type": "websocket.close"})
        return
    headers = [(b"content-length", b"4")] if scope["path"] == "/small" else []
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["path"] == "/left":
        while (await receive())["type"] != "http.disconnect":
            pass
        await asyncio.sleep(0.02)  # until the transport has let go of the socket as well
    if scope["path"] in ("/broken", "/left"):
        raise ArithmeticError
    body = bytes(LARGE) if scope["path"] == "/large" else b"body"
    await send({"type": "http.response.body", "body": body})


Site = tuple[int, uvicorn.Server]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with served(application, timeout_keep_alive=600) as (url, server):
        yield int(url.rpartition(":")[2]), server


async def ask(port: int, path: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_024)
    writer.write(ASK % path)
    return reader, writer


async def test_a_small_response_is_one_write(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    written, write = list[bytes](), _Joining.write

    def noting(joining: _Joining, data: bytes) -> None:
        write(joining, data)
        if data and not joining.hold:
            written.append(data)

    monkeypatch.setattr(_Joining, "write", noting)
    reader, writer = await ask(site[0], b"small")
    assert (await within(reader.readuntil(b"\r\n\r\n"))).startswith(b"HTTP/1.1 200")
    assert await within(reader.readexactly(4)) == b"body"
    writer.close()
    assert written == [b"body"], "the head was kept until then"


async def test_the_head_of_a_response_without_end_is_seen_before_the_connection_closes(site: Site) -> None:
    reader, writer = await ask(site[0], b"broken")
    assert (await within(reader.read())).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_an_application_that_fails_after_its_client_has_left_harms_nothing_else(site: Site) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    port, server = site
    _, writer = await ask(port, b"left")
    await eventually(lambda: len(server.server_state.tasks) == 1)
    writer.transport.abort()
    await eventually(lambda: not server.server_state.tasks)
    gc.collect()  # an error that nobody took is told when its task is forgotten
    assert complaints == []


async def test_who_says_no_more_and_reads_nothing_is_dropped(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "LINGER", 0.1)
    port, server = site
    reader, writer = await ask(port, b"large")
    await within(reader.readexactly(1))
    assert len(server.server_state.connections) == 1
    writer.write_eof()
    try:
        await eventually(lambda: not server.server_state.connections)
    finally:
        writer.transport.abort()


async def test_who_asks_and_asks_and_reads_nothing_is_dropped(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttp, "read_timeout", 0.05, raising=False)
    port, server = site
    reader, writer = await ask(port, b"large")
    await within(reader.readexactly(1))
    writer.write(ASK % b"large")
    try:
        await eventually(lambda: not server.server_state.connections and not server.server_state.tasks)
    finally:
        writer.transport.abort()


async def test_who_reads_slowly_gets_all_of_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttp, "read_timeout", 0.2, raising=False)
    reader, writer = await ask(site[0], b"large")
    await within(reader.readuntil(b"\r\n\r\n"))
    for _ in range(LARGE // PART):
        await within(reader.readexactly(PART))
        await asyncio.sleep(0.05)
    writer.close()


async def test_the_head_of_a_second_request_is_not_waited_for_either(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedHttp, "head_timeout", 0.1)
    reader, writer = await ask(site[0], b"small")
    await within(reader.readuntil(b"body"))
    writer.write(ASK[:9])
    try:
        assert await within(reader.read()) == b""
    except ConnectionResetError:
        pass
    writer.close()


async def test_a_websocket_is_no_head_that_takes_too_long(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttp, "head_timeout", 0.05)
    async with websockets.connect(f"ws://127.0.0.1:{site[0]}/", ping_interval=None) as connection:
        await asyncio.sleep(0.15)
        await connection.send("hello")
        assert await within(connection.recv()) == "heard"
