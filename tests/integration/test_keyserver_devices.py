"""Registering devices and logging them in, over HTTP against the application in this process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2ee.limits import DAY_MS, MINUTE_MS
from e2ee.wire.codec import to_base64url
from keyserver.client import CounterBehindError, KeyServerRefusedError
from tests.databases import each_database  # noqa: F401 - a fixture
from tests.keyserver_world import TestDevice, World, host_token, world


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def registration(device: TestDevice) -> dict[str, str]:
    return {
        "device_id": str(device.address.device_id),
        "device_signing_key": to_base64url(device.signing.public.raw),
        "identity_key": to_base64url(device.identity.public.raw),
    }


async def register(server: World, device: TestDevice, user: str | None = None) -> tuple[int, dict[str, str]]:
    token = host_token(user or device.user.user_id, server.clock())
    response = await server.post("/v1/devices", registration(device), token)
    return response.status_code, response.json()


async def test_a_registered_device_is_pending_until_a_list_contains_it(server: World) -> None:
    device = server.user("alice").device()
    assert await register(server, device) == (
        200,
        {"user_id": "alice", "device_id": str(device.address.device_id), "status": "pending"},
    )
    await server.client(device).publish_device_list(device.user.next_list(device))
    assert (await register(server, device))[1]["status"] == "active"


async def test_a_device_that_the_newest_list_names_is_active_at_once(server: World) -> None:
    phone, _ = await server.join("alice")
    laptop = phone.user.device()
    await server.client(phone).publish_device_list(phone.user.next_list(phone, laptop))
    assert (await register(server, laptop))[1]["status"] == "active"


async def test_a_listed_device_id_cannot_be_registered_with_other_keys(server: World) -> None:
    phone, _ = await server.join("alice")
    laptop, other = phone.user.device(), phone.user.device()
    await server.client(phone).publish_device_list(phone.user.next_list(phone, laptop))
    other.address = laptop.address
    status, body = await register(server, other)
    assert (status, body["code"]) == (409, "listed_keys_differ")


async def test_registering_again_with_the_same_keys_changes_nothing_and_with_others_is_refused(server: World) -> None:
    device = server.user("alice").device()
    first = await register(server, device)
    assert await register(server, device) == first
    other = device.user.device()
    other.address = device.address
    status, body = await register(server, other)
    assert (status, body["code"]) == (409, "device_exists")
    assert await register(server, device) == first


async def test_a_device_id_belongs_to_one_user_only_by_its_address(server: World) -> None:
    alices = server.user("alice").device()
    mallorys = server.user("mallory").device()
    await register(server, alices)
    mallorys.address = type(mallorys.address)(mallorys.user.user_id, alices.address.device_id)
    assert (await register(server, mallorys))[0] == 200
    assert (await register(server, alices))[0] == 200


async def test_a_retired_device_id_never_returns(server: World) -> None:
    phone, client = await server.join("alice")
    laptop = phone.user.device()
    await register(server, laptop)
    await client.publish_device_list(phone.user.next_list(phone, laptop))
    await client.publish_device_list(phone.user.next_list(phone))
    status, body = await register(server, laptop)
    assert (status, body["code"]) == (409, "device_retired")


async def test_too_many_devices_that_wait_to_be_listed_are_refused_and_displaced_after_a_day(server: World) -> None:
    user = server.user("alice")
    waiting = [user.device() for _ in range(11)]
    for device in waiting[:10]:
        assert (await register(server, device))[0] == 200
    status, body = await register(server, waiting[10])
    assert (status, body["code"]) == (409, "too_many_devices")
    server.clock.pass_ms(DAY_MS)
    assert (await register(server, waiting[10]))[0] == 200
    refused = [device for device in waiting if (await register(server, device))[1].get("code") == "device_retired"]
    assert len(refused) == 1


async def test_registrations_of_one_user_are_limited(tmp_path: Path) -> None:
    async with world(tmp_path, register_burst=2, register_seconds=60) as server:
        user = server.user("alice")
        for _ in range(2):
            assert (await register(server, user.device()))[0] == 200
        third = user.device()
        token = host_token("alice", server.clock())
        response = await server.post("/v1/devices", registration(third), token)
        assert response.status_code == 429
        assert response.headers["retry-after"] == "60"
        assert (await register(server, server.user("bob").device()))[0] == 200
        server.clock.pass_ms(MINUTE_MS)
        assert (await register(server, third))[0] == 200


async def test_a_device_gets_tokens_by_signing_alone_until_its_login_ends(server: World) -> None:
    device, client = await server.join("alice")
    hosts_token = device.host_token
    asked = 0

    async def counted() -> str:
        nonlocal asked
        asked += 1
        return await hosts_token()

    device.host_token = counted  # type: ignore[method-assign]  # of this one object
    client = server.client(device)
    tokens = set()
    for _ in range(3):
        tokens.add(await client.device_token())
        server.clock.pass_ms(15 * MINUTE_MS)
        await client.prekey_counts()
    assert asked == 1
    assert len(tokens) == 3
    server.clock.pass_ms(30 * DAY_MS)
    await client.prekey_counts()
    assert asked == 2


async def test_the_oldest_of_many_logins_ends(server: World) -> None:
    device, client = await server.join("alice")
    token = await client.device_token()
    hosts = await device.host_token()
    for _ in range(10):
        server.clock.pass_ms(1)
        response = await server.post("/v1/logins", {"device_id": str(device.address.device_id)}, hosts)
        assert response.status_code == 200
    refused = await server.post("/v1/prekeys", None, token, "GET")
    assert (refused.status_code, refused.json()["code"]) == (401, "token_invalid")
    await client.prekey_counts()  # it logs in again by itself


async def test_a_store_that_counts_from_an_older_copy_is_told_the_highest_counter(server: World) -> None:
    device, client = await server.join("alice")
    device.counter = 41
    server.clock.pass_ms(15 * MINUTE_MS)
    await client.device_token()
    device.counter = 17
    with pytest.raises(CounterBehindError) as refused:
        await server.client(device).device_token()
    assert refused.value.highest_counter == 42


async def test_an_unregistered_device_cannot_log_in(server: World) -> None:
    device = server.user("alice").device()
    with pytest.raises(KeyServerRefusedError) as refused:
        await server.client(device).device_token()
    assert refused.value.code == "device_not_registered"


async def test_a_server_with_several_names_accepts_assertions_for_each(tmp_path: Path) -> None:
    async with world(tmp_path, other_origins=("http://localhost:8000",)) as server:
        device, _ = await server.join("alice")
        hosts = await device.host_token()
        login = (await server.post("/v1/logins", {"device_id": str(device.address.device_id)}, hosts)).json()
        body = device.assertion(login["login_id"], 1000, "http://localhost:8000")
        assert (await server.post("/v1/tokens", body)).status_code == 200


async def test_registration_makes_the_devices_inbox_in_the_same_transaction(server: World) -> None:
    device, _ = await server.join("alice")
    relay = server.app.services.relay
    state = await server.app.services.database.write(
        lambda connection: relay.mailbox.hello(connection, device.address, 0, 0, server.clock())
    )
    assert state is not None
    assert state.head_seq == 0
