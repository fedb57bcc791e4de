"""Attack: bodies that are larger than allowed, declared, undeclared, or falsely declared."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.keyserver_process import ServerProcess
from tests.keyserver_world import World, host_token, world

LIMIT = 64 * 1024
UPLOAD_LIMIT = 512 * 1024


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


class Stream:
    """A body that comes in pieces of 16 KiB, and how much of it was taken."""

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.pieces):
            self.taken += 1
            yield b" " * 16 * 1024


@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        ("POST", "/v1/devices", LIMIT),
        ("POST", "/v1/logins", LIMIT),
        ("POST", "/v1/tokens", LIMIT),
        ("PUT", "/v1/device-lists", LIMIT),
        ("POST", "/v1/claims", LIMIT),
        ("GET", "/v1/prekeys", LIMIT),
        ("PUT", "/v1/prekeys", UPLOAD_LIMIT),
    ],
)
async def test_a_body_beyond_the_limit_is_refused_on_every_endpoint(
    server: World, method: str, path: str, limit: int
) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {host_token('alice', server.clock())}"}
    declared = await server.http.request(method, path, content=b" " * (limit + 1), headers=headers)
    assert (declared.status_code, declared.json()["code"]) == (413, "too_large")
    assert declared.json()["limit"] == limit
    within = await server.http.request(method, path, content=b" " * limit, headers=headers)
    assert within.status_code in (401, 422)


async def test_an_undeclared_body_is_counted_as_it_comes(server: World) -> None:
    stream = Stream(100_000)
    headers = {"Content-Type": "application/json"}
    response = await server.http.post("/v1/tokens", content=stream, headers=headers)
    assert (response.status_code, response.json()["code"]) == (413, "too_large")


async def test_a_small_declared_length_does_not_let_a_large_body_in(server: World) -> None:
    stream = Stream(100)
    headers = {"Content-Type": "application/json", "Content-Length": "10"}
    response = await server.http.post("/v1/tokens", content=stream, headers=headers)
    assert (response.status_code, response.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize("length", ["-1", "99999999999999999999999999", "0x10", "ten", "1e9", ""])
async def test_an_odd_declared_length_is_no_way_around(server: World, length: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": length}
    response = await server.http.post("/v1/tokens", content=Stream(100), headers=headers)
    assert (response.status_code, response.json()["code"]) == (413, "too_large")


async def test_a_real_server_stops_reading_an_endless_chunked_body(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path)
    await process.start()
    try:
        host, port = process.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        sent = 0
        chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
        answer = asyncio.create_task(reader.readline())
        try:
            while not answer.done() and sent < 256 * 1024 * 1024:
                writer.write(chunk)
                sent += len(chunk)
                await writer.drain()
        except ConnectionError:
            pass  # it hung up, which is the point
        assert b"413" in await answer
        assert sent < 64 * 1024 * 1024
        writer.close()
    finally:
        await process.aclose()
