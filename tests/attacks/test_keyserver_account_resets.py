"""Account resets at the key server: who may, what must follow what, and what a lost or stolen device can still do."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from e2ee.private_keys import AccountKeyPair
from e2ee.wire.codec import to_base64url
from e2ee.wire.device_list import SignedDeviceList
from keyserver.client import KeyServerClient
from tests.databases import each_database  # noqa: F401 - a fixture
from tests.keyserver_world import TestDevice, World, host_token, world


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def reset(
    server: World, closing: SignedDeviceList | None, first: SignedDeviceList, user: str = "alice"
) -> tuple[int, str]:
    body = {
        "closing_list": None if closing is None else to_base64url(closing.encode()),
        "device_list": to_base64url(first.encode()),
    }
    response = await server.post("/v1/account-resets", body, host_token(user, server.clock()))
    return response.status_code, response.json().get("code", "")


def lists_of(phone: TestDevice, *devices: TestDevice, **changes: Any) -> tuple[SignedDeviceList, SignedDeviceList]:
    """The last list of the old key, and the first of a new one."""
    user = phone.user
    closing = user.sign_list([])
    pair = AccountKeyPair.generate(user.random.randbytes)
    following = {"seq": closing.unverified.seq + 1, "previous_hash": closing.unverified.hash()}
    return closing, user.sign_list(devices or [phone], account=pair, **(following | changes))


async def linked(server: World) -> tuple[TestDevice, KeyServerClient, TestDevice, KeyServerClient]:
    phone, phones = await server.join("alice")
    laptop = phone.user.device()
    laptops = server.client(laptop)
    await laptops.register_device(laptop.signing.public, laptop.identity.public)
    await phones.publish_device_list(phone.user.next_list(phone, laptop))
    return phone, phones, laptop, laptops


async def newest(server: World, client: KeyServerClient) -> SignedDeviceList:
    return (await client.device_lists(client._address.user_id))[-1]


async def test_a_reset_is_accepted_once_and_again_and_the_other_devices_are_out(server: World) -> None:
    phone, phones, laptop, laptops = await linked(server)
    token = await laptops.device_token()
    closing, first = lists_of(phone)
    for _ in range(2):
        assert await reset(server, closing, first) == (200, "")
    assert await newest(server, phones) == first
    response = await server.post("/v1/prekeys", None, token, "GET")
    assert (response.status_code, response.json()["code"]) == (401, "device_revoked")
    assert [each.device_id for each in await phones.own_devices()] == [phone.address.device_id]
    assert laptop.address.device_id not in {each.device_id for each in await phones.own_devices()}


async def test_without_the_old_key_a_reset_follows_the_newest_list(server: World) -> None:
    phone, phones = await server.join("alice")
    last = phone.user.lists[-1].unverified
    _, first = lists_of(phone, seq=last.seq + 1, previous_hash=last.hash())
    assert await reset(server, None, first) == (200, "")
    assert await newest(server, phones) == first


async def test_after_a_reset_the_old_key_signs_nothing_any_more(server: World) -> None:
    phone, phones, laptop, _ = await linked(server)
    closing, first = lists_of(phone)
    await reset(server, closing, first)
    content = first.unverified
    forged = phone.user.sign_list([phone, laptop], seq=content.seq + 1, previous_hash=content.hash())
    response = await server.post(
        "/v1/device-lists",
        {"device_list": to_base64url(forged.encode())},
        host_token("alice", server.clock()),
        "PUT",
    )
    assert response.json()["code"] == "account_key_changed"
    assert await newest(server, phones) == first


@pytest.mark.parametrize("case", ["same key", "no device", "closing has devices", "closing of another key"])
async def test_lists_of_another_form_are_refused(server: World, case: str) -> None:
    phone, phones = await server.join("alice")
    before = await newest(server, phones)
    closing, first = lists_of(phone)
    following: dict[str, Any] = {"seq": first.unverified.seq, "previous_hash": first.unverified.previous_hash}
    if case == "same key":
        first = phone.user.sign_list([phone], **following)
    elif case == "no device":
        pair = AccountKeyPair.generate(phone.user.random.randbytes)
        first = phone.user.sign_list([], account=pair, **following)
    elif case == "closing has devices":
        closing = phone.user.sign_list([phone])
    else:
        closing = phone.user.sign_list([], account=AccountKeyPair.generate(phone.user.random.randbytes))
    assert await reset(server, closing, first) == (409, "reset_lists")
    assert await newest(server, phones) == before


async def test_lists_that_do_not_follow_are_refused_and_nothing_of_them_is_kept(server: World) -> None:
    phone, phones = await server.join("alice")
    before = await newest(server, phones)
    closing, first = lists_of(phone)
    gap = lists_of(phone, seq=first.unverified.seq + 1)[1]
    other = lists_of(phone, previous_hash=before.unverified.hash())[1]
    for lists in ((closing, gap), (closing, other), (None, first)):
        assert await reset(server, *lists) == (409, "device_list_conflict")
    assert await newest(server, phones) == before


async def test_nobody_resets_another_users_account(server: World) -> None:
    phone, phones = await server.join("alice")
    await server.join("mallory")
    before = await newest(server, phones)
    closing, first = lists_of(phone)
    assert await reset(server, closing, first, user="mallory") == (422, "invalid_signature")
    device_token = await phones.device_token()
    body = {"closing_list": None, "device_list": to_base64url(first.encode())}
    response = await server.post("/v1/account-resets", body, device_token)
    assert response.status_code == 401
    assert await newest(server, phones) == before


async def test_a_forged_signature_on_either_list_is_refused(server: World) -> None:
    phone, phones = await server.join("alice")
    before = await newest(server, phones)
    closing, first = lists_of(phone)
    for lists in (
        (SignedDeviceList(closing.unverified, bytes(64)), first),
        (closing, SignedDeviceList(first.unverified, bytes(64))),
    ):
        assert await reset(server, *lists) == (422, "invalid_signature")
    assert await newest(server, phones) == before


async def test_there_is_nothing_to_reset_before_the_first_list(server: World) -> None:
    phone = server.user("alice").device()
    closing, first = lists_of(phone)
    assert await reset(server, closing, first) == (409, "reset_lists")


async def test_a_device_that_left_does_not_come_back_by_a_reset(server: World) -> None:
    phone, phones, laptop, _ = await linked(server)
    await phones.publish_device_list(phone.user.next_list(phone))
    closing, first = lists_of(phone, laptop)
    assert await reset(server, closing, first) == (409, "device_retired")
