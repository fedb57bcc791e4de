"""Attack: a login assertion used again, elsewhere, or by somebody else."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2ee.wire.identifiers import DeviceAddress
from tests.databases import each_database  # noqa: F401 - a fixture
from tests.keyserver_world import ORIGIN, TestDevice, World, world


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def login(server: World, device: TestDevice) -> str:
    body = {"device_id": str(device.address.device_id)}
    response = await server.post("/v1/logins", body, await device.host_token())
    login_id: str = response.json()["login_id"]
    return login_id


def assert_refused(response: httpx.Response, code: str = "assertion_refused", status: int = 401) -> None:
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert "token" not in response.json()


async def test_a_captured_assertion_is_refused_the_second_time(server: World) -> None:
    device, _ = await server.join("alice")
    captured = device.assertion(await login(server, device), 100)
    assert (await server.post("/v1/tokens", captured)).status_code == 200
    replayed = await server.post("/v1/tokens", captured)
    assert_refused(replayed, "assertion_replayed", 409)
    assert replayed.json()["highest_counter"] == 100


async def test_an_assertion_that_was_overtaken_is_refused(server: World) -> None:
    device, _ = await server.join("alice")
    login_id = await login(server, device)
    held_back = device.assertion(login_id, 100)
    assert (await server.post("/v1/tokens", device.assertion(login_id, 101))).status_code == 200
    assert_refused(await server.post("/v1/tokens", held_back), "assertion_replayed", 409)


async def test_a_captured_assertion_is_refused_in_a_later_login_too(server: World) -> None:
    device, _ = await server.join("alice")
    captured = device.assertion(await login(server, device), 100)
    await server.post("/v1/tokens", captured)
    assert_refused(await server.post("/v1/tokens", captured | {"login_id": await login(server, device)}))


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1:8001", "https://127.0.0.1:8000", "http://localhost:8000"]
)
async def test_an_assertion_for_another_server_is_refused(server: World, origin: str) -> None:
    device, _ = await server.join("alice")
    assert_refused(await server.post("/v1/tokens", device.assertion(await login(server, device), 100, origin)))


async def test_an_assertion_is_refused_in_another_devices_login(server: World) -> None:
    alice, _ = await server.join("alice")
    mallory, _ = await server.join("mallory")
    body = alice.assertion(await login(server, mallory), 100)
    assert_refused(await server.post("/v1/tokens", body), "login_ended")


async def test_one_device_cannot_sign_for_another(server: World) -> None:
    alice, _ = await server.join("alice")
    mallory, _ = await server.join("mallory")
    mallory.address = alice.address
    assert_refused(await server.post("/v1/tokens", mallory.assertion(await login(server, alice), 100)))


@pytest.mark.parametrize(
    "change",
    [
        {"counter": 101},
        {"signature": "A" * 86},
        {"signature": ""},
        {"login_id": "00" * 16},
        {"user_id": "mallory"},
        {"device_id": "00" * 16},
    ],
)
async def test_a_changed_assertion_is_refused_and_uses_up_nothing(server: World, change: dict[str, Any]) -> None:
    await server.join("mallory")
    device, _ = await server.join("alice")
    good = device.assertion(await login(server, device), 100)
    assert_refused(await server.post("/v1/tokens", good | change))
    assert (await server.post("/v1/tokens", good)).status_code == 200


async def test_a_stranger_cannot_tell_a_known_device_from_an_unknown_or_a_retired_one(server: World) -> None:
    phone, client = await server.join("alice")
    laptop = phone.user.device()
    await server.client(laptop).register_device(laptop.signing.public, laptop.identity.public)
    await client.publish_device_list(phone.user.next_list(phone, laptop))
    await client.publish_device_list(phone.user.next_list(phone))
    unknown = phone.user.device()
    mallory, _ = await server.join("mallory")
    answers = []
    for device in (phone, laptop, unknown):
        mallory.address = DeviceAddress(device.user.user_id, device.address.device_id)
        answers.append(await server.post("/v1/tokens", mallory.assertion("00" * 16, 100, ORIGIN)))
    assert len({(answer.status_code, answer.text) for answer in answers}) == 1
