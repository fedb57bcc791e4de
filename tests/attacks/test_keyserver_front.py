"""Attacks on what comes before every endpoint: foreign pages, plaintext past the proxy, forged addresses, floods."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from keyserver.app import create_app
from keyserver.front import Front
from keyserver.routes import guarded
from tests.keyserver_world import ORIGIN, Clock, World, host_token, running, settings, world

EVIL = "https://evil.example"
PATHS = ("/v1/device-lists?user_id=a", "/healthz", "/socket.io/?EIO=4&transport=polling", "/e2ee/sse", "/nothing")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def seen_from(server: World, address: str, scheme: str = "http") -> httpx.AsyncClient:
    """A client at an address of its own."""
    transport = httpx.ASGITransport(app=server.app, client=(address, 4711), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=ORIGIN.replace("http", scheme, 1))


async def open_websocket(server: World, headers: dict[str, str], client: str = "127.0.0.1") -> str:
    """Say what the first answer to a WebSocket's handshake is."""
    scope: dict[str, Any] = {
        "type": "websocket",
        "scheme": "ws",
        "path": "/e2ee/ws",
        "raw_path": b"/e2ee/ws",
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": (client, 4711),
        "subprotocols": [],
    }
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    incoming.put_nowait({"type": "websocket.connect"})
    answers: asyncio.Queue[str] = asyncio.Queue()

    async def send(message: Any) -> None:
        answers.put_nowait(str(message["type"]))

    task = asyncio.create_task(server.app(scope, incoming.get, send))
    async with asyncio.timeout(10):
        answer = await answers.get()
        incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await task
    return answer


# --- Foreign pages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin", [EVIL, "null", "http://127.0.0.1:8001", "https://127.0.0.1:8000", f"{ORIGIN}.evil", ""]
)
async def test_a_script_of_another_page_is_refused_everywhere_before_anything_is_done(
    server: World, origin: str
) -> None:
    for path in PATHS:
        for method in ("GET", "POST", "OPTIONS"):
            asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            refused = await server.http.request(method, path, headers=asked)
            assert (refused.status_code, refused.json()["code"]) == (403, "origin_refused")
            assert not [name for name in refused.headers if name.startswith("access-control-")]
    assert await open_websocket(server, {"origin": origin}) == "websocket.close"


async def test_programs_and_the_servers_own_pages_are_let_in_and_no_page_gets_a_cors_header(server: World) -> None:
    for headers in ({}, {"Origin": ORIGIN}):
        for path in PATHS:
            answer = await server.http.get(path, headers=headers)
            assert answer.status_code != 403
            assert not [name for name in answer.headers if name.startswith("access-control-")]
        lower = {name.lower(): value for name, value in headers.items()}
        assert await open_websocket(server, lower) == "websocket.accept"


async def test_two_origins_of_which_one_is_ours_are_refused(server: World) -> None:
    headers = [("Origin", ORIGIN), ("Origin", EVIL)]
    assert (await server.http.get("/healthz", headers=headers)).status_code == 403


async def test_only_a_page_that_the_settings_name_gets_the_headers_that_let_it_read(tmp_path: Path) -> None:
    page = "https://chat.example"
    async with world(tmp_path, browser_origins=(page,)) as server:
        preflight = await server.http.options(
            "/v1/tokens",
            headers={
                "Origin": page,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type",
            },
        )
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == page
        assert "access-control-allow-credentials" not in preflight.headers
        answer = await server.http.get("/v1/device-lists?user_id=a", headers={"Origin": page})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, page)
        assert (await server.http.get("/healthz", headers={"Origin": EVIL})).status_code == 403
        assert await open_websocket(server, {"origin": page}) == "websocket.accept"


# --- Headers -------------------------------------------------------------------------------------------------


async def test_every_answer_forbids_caching_sniffing_framing_and_running_anything(server: World) -> None:
    answers = [await server.http.get(path) for path in PATHS]
    answers.append(await server.post("/v1/tokens", {}))
    answers.append(await server.http.get("/healthz", headers={"Origin": EVIL}))
    for answer in answers:
        for name, value in guarded.SECURITY_HEADERS.items():
            assert answer.headers[name] == value, answer.request.url
        assert "strict-transport-security" not in answer.headers  # over plaintext it means nothing
        assert "server" not in answer.headers


async def test_over_tls_browsers_are_told_to_stay_there(server: World) -> None:
    async with seen_from(server, "192.0.2.7", "https") as client:
        assert (await client.get("/healthz")).headers["strict-transport-security"].startswith("max-age=63072000")


# --- Plaintext -----------------------------------------------------------------------------------------------


@pytest.fixture
async def proxied(tmp_path: Path) -> AsyncIterator[World]:
    """A server behind a proxy at 10.0.0.2."""
    async with world(tmp_path, behind_tls_proxy=True, trusted_proxies=("10.0.0.2/32",)) as made:
        yield made


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        ("192.0.2.7", {}),
        ("192.0.2.7", {"X-Forwarded-Proto": "https", "X-Forwarded-For": "10.0.0.2"}),
        ("10.0.0.3", {"X-Forwarded-Proto": "https"}),
        ("10.0.0.2", {"X-Forwarded-Proto": "http", "X-Forwarded-For": "192.0.2.7"}),
        ("10.0.0.2", {"X-Forwarded-Proto": "http, https", "X-Forwarded-For": "192.0.2.7"}),
        ("10.0.0.2", {"X-Forwarded-For": "127.0.0.1"}),
        ("10.0.0.2", {}),
    ],
)
async def test_plaintext_around_the_proxy_or_through_it_is_refused(
    proxied: World, client: str, headers: dict[str, str]
) -> None:
    async with seen_from(proxied, client) as http:
        for path in set(PATHS) - {"/healthz"}:
            refused = await http.get(path, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (403, "plaintext_refused")
        assert (await http.get("/healthz", headers=headers)).status_code == 200  # what an orchestrator asks
    lower = {name.lower(): value for name, value in headers.items()}
    assert await open_websocket(proxied, lower, client) == "websocket.close"


async def test_what_the_proxy_brings_encrypted_and_what_is_asked_on_this_machine_is_let_in(proxied: World) -> None:
    for client, headers in (("10.0.0.2", {"X-Forwarded-Proto": "https"}), ("127.0.0.1", {}), ("::1", {})):
        async with seen_from(proxied, client) as http:
            assert (await http.get(PATHS[0], headers=headers)).status_code == 401
        lower = {name.lower(): value for name, value in headers.items()}
        assert await open_websocket(proxied, lower, client) == "websocket.accept"


# --- Floods --------------------------------------------------------------------------------------------------


async def test_an_address_that_floods_is_refused_and_others_are_not(tmp_path: Path) -> None:
    async with (
        world(tmp_path, address_burst=5, address_per_second=1) as server,
        seen_from(server, "192.0.2.7") as mallory,
        seen_from(server, "192.0.2.8") as other,
    ):
        # Without a token, with a bad one, with bodies that are refused: each counts, before it costs anything.
        for number in range(5):
            path = ("/v1/tokens", "/v1/devices")[number % 2]
            assert (await mallory.post(path, content=b"x" * 100_000 * (number % 3))).status_code in (401, 413, 422)
        refused = await mallory.get("/v1/prekeys")
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert refused.headers["retry-after"] == "1"
        assert (await other.get("/v1/prekeys")).status_code == 401
        server.clock.pass_ms(1_000)
        assert (await mallory.get("/v1/prekeys")).status_code == 401
        assert (await mallory.get("/v1/prekeys")).status_code == 429


async def test_forged_forwarded_addresses_do_not_get_around_the_limit(tmp_path: Path) -> None:
    async with (
        world(tmp_path, address_burst=3, address_per_second=1, trusted_proxies=("10.0.0.2",)) as server,
        seen_from(server, "192.0.2.7") as direct,
        seen_from(server, "10.0.0.2") as through_proxy,
    ):
        codes = [
            (await direct.get("/v1/prekeys", headers={"X-Forwarded-For": f"198.51.100.{number}"})).status_code
            for number in range(5)
        ]
        assert codes == [401] * 3 + [429] * 2
        forged = [
            (await through_proxy.get("/v1/prekeys", headers={"X-Forwarded-For": f"198.51.100.{n}, 192.0.2.9"}))
            for n in range(5)
        ]
        assert [each.status_code for each in forged] == [401] * 3 + [429] * 2


async def test_opening_connections_without_end_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path, address_burst=4, address_per_second=1) as server:
        opened = [await open_websocket(server, {}, "192.0.2.7") for _ in range(3)]
        async with seen_from(server, "192.0.2.7") as client:
            opened += [str((await client.get(PATHS[2])).status_code) for _ in range(2)]
        assert opened == ["websocket.accept"] * 3 + ["200", "429"]
        assert await open_websocket(server, {}, "192.0.2.7") == "websocket.close"
        assert await open_websocket(server, {}, "192.0.2.8") == "websocket.accept"


async def test_a_user_who_floods_is_refused_on_all_addresses_and_devices_and_others_are_not(tmp_path: Path) -> None:
    async with world(tmp_path, user_burst=5, user_per_second=1) as server:
        codes = []
        for number in range(6):
            async with seen_from(server, f"192.0.2.{number}") as client:
                headers = {"Authorization": f"Bearer {host_token('mallory', server.clock())}"}
                codes.append((await client.get("/v1/device-lists?user_id=a", headers=headers)).status_code)
        assert codes == [200] * 5 + [429]
        other = await server.post("/v1/device-lists?user_id=a", None, host_token("alice", server.clock()), "GET")
        assert other.status_code == 200


async def test_a_user_cannot_be_locked_out_by_somebody_elses_bad_tokens(tmp_path: Path) -> None:
    async with world(tmp_path, user_burst=3, user_per_second=1) as server:
        token = host_token("alice", server.clock())
        for _ in range(10):
            assert (await server.post("/v1/prekeys", None, token[:-4] + "AAAA", "GET")).status_code == 401
        assert (await server.post("/v1/device-lists?user_id=a", None, token, "GET")).status_code == 200


async def test_two_nodes_on_one_database_count_together(tmp_path: Path) -> None:
    clock = Clock()
    limits = settings(tmp_path / "server.db", address_burst=6, address_per_second=1)
    one, other = (create_app(limits, now=clock) for _ in range(2))
    async with running(one, clock) as first:
        # The database alone: the whole of a second one would be refused without a bus.
        await other.services.database.start()
        codes = []
        for node in (first, World(other, clock)) * 4:
            async with seen_from(node, "192.0.2.7") as client:
                codes.append((await client.get("/v1/prekeys")).status_code)
        await other.services.database.close()
    assert codes == [401] * 6 + [429] * 2


# --- Slow bodies ---------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "BODY_SECONDS", 0.1)


async def test_a_body_that_does_not_come_is_given_up(server: World, impatient: None) -> None:
    async def drip() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    headers = {"Content-Type": "application/json"}
    async with asyncio.timeout(10):
        refused = await server.http.post("/v1/tokens", content=drip(), headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (408, "body_timeout")


async def test_a_body_that_drips_is_given_up_as_well(server: World, impatient: None) -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    headers = {"Content-Type": "application/json"}
    async with asyncio.timeout(10):
        refused = await server.http.post("/v1/tokens", content=drip(), headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (408, "body_timeout")


def test_the_front_is_the_outermost_layer(tmp_path: Path) -> None:
    assert isinstance(create_app(settings(tmp_path / "server.db"))._asgi, Front)
