"""Attack: finding a difference between the two ways that a claim can take, to pass one and be seen by the other."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from tests.keyserver_world import ORIGIN, World, host_token, world

GOOD = b'{"user_id":"bob","request_id":"00112233445566778899aabbccddeeff"}'
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, claim_pair_burst=100) as made:
        bob, client = await made.join("bob")
        await client.publish_prekeys(bob.upload(1, 1))
        yield made


@pytest.fixture
async def framework(server: World) -> AsyncIterator[httpx.AsyncClient]:
    """The same server, mounted in an application: every request goes through FastAPI."""
    app = FastAPI(redirect_slashes=False)
    app.include_router(server.app.services.router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=ORIGIN) as http:
        yield http


BODIES = [
    GOOD,
    b"",
    b" ",
    b"null",
    b"[]",
    b"{}",
    b'"text"',
    b"{",
    b"\xff\xfe",
    b"\xef\xbb\xbf" + GOOD,
    GOOD + b"x",
    b"[" * 100_000,
    GOOD[:-1] + b',"request_id":"00112233445566778899aabbccddeef0"}',
    GOOD[:-1] + b',"more":1}',
    GOOD[:-1] + b',"device_ids":null}',
    GOOD[:-1] + b',"device_ids":[]}',
    GOOD[:-1] + b',"device_ids":["00"]}',
    GOOD[:-1] + b',"device_ids":[1,2,3,4,5,6,7]}',
    GOOD[:-1] + b',"device_ids":NaN}',
    GOOD[:-1] + b',"device_ids":' + b"[" * 30_000 + b"}",
    b'{"user_id":"bob"}',
    b'{"user_id":1,"request_id":2}',
    b'{"user_id":"b ob","request_id":"00112233445566778899AABBCCDDEEFF"}',
    b'{"user_id":"","request_id":""}',
    b'{"user_id":"nobody","request_id":"000102030405060708090a0b0c0d0e0f"}',
    GOOD + b" " * 70_000,
]
HEADERS: list[dict[str, str]] = [
    JSON,
    {},
    {"Content-Type": "application/json; charset=latin-1"},
    {"Content-Type": "APPLICATION/JSON"},
    {"Content-Type": "text/plain"},
    {**JSON, "Content-Length": "7"},
    {**JSON, "Authorization": "Bearer"},
    {**JSON, "Authorization": "Basic x"},
    {**JSON, "Authorization": "Bearer x.y.z"},
    {**JSON, "X-Forwarded-For": "1.2.3.4"},
]


Answered = tuple[int, bytes, dict[str, str]]


async def both(
    server: World,
    framework: httpx.AsyncClient,
    *,
    headers: dict[str, str],
    content: bytes,
    method: str = "POST",
    query: str = "",
) -> list[Answered]:
    seen: list[Answered] = []
    for http in (server.http, framework):
        answer = await http.request(method, f"/v1/claims{query}", headers=headers, content=content)
        named = {name: value for name, value in answer.headers.items() if name != "connection"}
        seen.append((answer.status_code, answer.content, named))
    return seen


async def test_any_body_is_answered_the_same_on_both_ways(server: World, framework: httpx.AsyncClient) -> None:
    token = await (await server.join("alice"))[1].device_token()
    for body in BODIES:
        for headers in (JSON | {"Authorization": f"Bearer {token}"}, JSON):
            short, long = await both(server, framework, headers=headers, content=body)
            assert short == long, (body[:100], headers)


async def test_any_headers_and_methods_are_answered_the_same_on_both_ways(
    server: World, framework: httpx.AsyncClient
) -> None:
    token = await (await server.join("alice"))[1].device_token()
    bearers = [f"Bearer {token}", f"bearer  {token}", f"Bearer {host_token('alice', server.clock())}"]
    for headers in HEADERS:
        for bearer in bearers:
            short, long = await both(server, framework, headers={"Authorization": bearer} | headers, content=GOOD)
            assert short == long, (headers, bearer)
    good = JSON | {"Authorization": bearers[0]}
    for method, query in (("POST", "?a=1&a=2"), ("POST", "?"), ("POST", "/"), ("PUT", ""), ("GET", ""), ("HEAD", "")):
        short, long = await both(server, framework, headers=good, content=GOOD, method=method, query=query)
        assert short[0] == long[0], (method, query)


async def test_who_leaves_in_the_middle_of_a_body_is_no_fault_of_the_server_on_either_way(
    server: World, framework: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    mounted = framework._transport
    assert isinstance(mounted, httpx.ASGITransport)
    answers = [await left_alone(server.app), await left_alone(mounted.app)]
    assert answers[0] == answers[1]
    assert answers[0][0]["status"] == 422
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


async def left_alone(app: Any) -> list[Any]:
    """Send half a claim, then leave. Anybody can: no token is needed."""
    headers = [(b"host", b"x"), (b"content-type", b"application/json"), (b"content-length", b"80")]
    came = iter([{"type": "http.request", "body": GOOD[:9], "more_body": True}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(came, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http"}
    place = {"path": "/v1/claims", "raw_path": b"/v1/claims", "root_path": "", "query_string": b"", "headers": headers}
    await app(scope | place | {"client": ("127.0.0.1", 1), "server": ("x", 443)}, receive, send)
    for each in sent:
        if "headers" in each:
            each["headers"] = sorted(each["headers"])
    return sent


async def test_the_two_ways_are_two(server: World, framework: httpx.AsyncClient) -> None:
    """Or the tests above would compare one with itself."""
    asked: list[str] = []
    fastapi = server.app.fastapi
    original = fastapi.router.app

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append("framework")
        await original(scope, receive, send)

    fastapi.middleware_stack = noting
    await server.http.post("/v1/claims", content=GOOD, headers=JSON)
    assert asked == []
    await server.http.post("/v1/claims", content=GOOD, headers={"Content-Type": "text/plain"})
    assert asked == ["framework"]
