"""The key service inside somebody else's FastAPI application."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse

from e2ee.wire.identifiers import UserId
from keyserver.app import build_services
from keyserver.client import KeyServerClient
from keyserver.host_token import HostIdentity
from keyserver.problems import TokenInvalidProblem
from tests.keyserver_world import IMPATIENT, ORIGIN, Clock, TestDevice, TestUser, settings


async def verify(token: str) -> HostIdentity:
    """The host's own way to know its users."""
    if not token.startswith("session of "):
        raise TokenInvalidProblem
    return HostIdentity(token.removeprefix("session of "))


async def may_contact(asker: UserId, other: UserId) -> bool:
    return "mallory" not in (asker, other)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    services = build_services(settings(tmp_path / "host.db"), verify, may_contact=may_contact, now=Clock())
    app = FastAPI(lifespan=services.lifespan)

    @app.exception_handler(Exception)
    async def hosts_own_handler(_request: Request, _error: Exception) -> PlainTextResponse:
        return PlainTextResponse("the host's own page", 500)

    @app.get("/")
    async def hosts_own_route() -> str:
        return "hello"

    app.include_router(services.router, prefix="/e2ee")
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with services.lifespan(app), httpx.AsyncClient(transport=transport, base_url=ORIGIN) as http:
        yield http


def client(http: httpx.AsyncClient, device: TestDevice) -> KeyServerClient:
    async def host_token() -> str:
        return f"session of {device.user.user_id}"

    return KeyServerClient(
        f"{ORIGIN}/e2ee",
        device.address,
        host_token=host_token,
        sign=device.signing.sign,
        next_counter=device.next_counter,
        http=http,
        options=IMPATIENT,
    )


async def joined(http: httpx.AsyncClient, name: str) -> tuple[TestDevice, KeyServerClient]:
    from random import Random

    device = TestUser(UserId(name), Random(name), Clock()).device()
    its = client(http, device)
    await its.register_device(device.signing.public, device.identity.public)
    await its.publish_device_list(device.user.next_list(device))
    await its.publish_prekeys(device.upload())
    return device, its


async def test_a_host_mounts_the_router_under_a_prefix_with_its_own_login(host: httpx.AsyncClient) -> None:
    bob, _ = await joined(host, "bob")
    _, alices = await joined(host, "alice")
    assert len((await alices.claim(bob.user.user_id, bytes(16))).bundles) == 1
    assert (await host.get("/")).json() == "hello"


async def test_errors_are_problems_whatever_handlers_the_host_has(host: httpx.AsyncClient) -> None:
    for method, path, status in (
        ("GET", "/e2ee/v1/prekeys", 401),
        ("POST", "/e2ee/v1/devices", 401),
        ("GET", "/e2ee/v1/device-lists", 401),
    ):
        response = await host.request(method, path)
        assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    body = await host.post("/e2ee/v1/tokens", json={"user_id": "alice"})
    assert (body.status_code, body.json()["code"]) == (422, "invalid_request")


async def test_the_hosts_contact_rule_holds(host: httpx.AsyncClient) -> None:
    bob, _ = await joined(host, "bob")
    mallory, mallorys = await joined(host, "mallory")
    assert (await mallorys.claim(bob.user.user_id, bytes(16))).bundles == ()
    assert len((await mallorys.claim(mallory.user.user_id, bytes([1]) * 16)).bundles) == 1


async def test_a_hosts_description_includes_ours(host: httpx.AsyncClient) -> None:
    described = (await host.get("/openapi.json")).json()
    assert "/e2ee/v1/claims" in described["paths"]
