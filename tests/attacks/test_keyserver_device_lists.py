"""Attacks on device lists: forged, forked, brought by strangers, naming devices wrongly."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from e2ee.private_keys import AccountKeyPair
from e2ee.wire.codec import to_base64url
from e2ee.wire.device_list import DeviceListHash, SignedDeviceList
from e2ee.wire.identifiers import UserId
from keyserver.client import KeyServerClient, KeyServerRefusedError
from tests.keyserver_world import TestDevice, World, host_token, world


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def refused_code(client: KeyServerClient, signed: SignedDeviceList) -> str:
    with pytest.raises(KeyServerRefusedError) as refused:
        await client.publish_device_list(signed)
    return refused.value.code


async def put(server: World, signed: SignedDeviceList, token: str) -> httpx.Response:
    return await server.post("/v1/device-lists", {"device_list": to_base64url(signed.encode())}, token, "PUT")


async def assert_unchanged(server: World, device: TestDevice) -> None:
    client = server.client(device)
    assert await client.device_lists(device.user.user_id) == tuple(device.user.lists)
    await client.prekey_counts()  # the device is still let in


async def test_a_list_that_the_account_key_did_not_sign_is_refused(server: World) -> None:
    alice, client = await server.join("alice")
    good = alice.user.sign_list([alice])
    other_key = AccountKeyPair.generate(server.random.randbytes)
    for forged in (
        replace(good, signature=bytes(64)),
        replace(good, signature=other_key.sign(good.unverified.signed_bytes())),
        replace(good, signature=alice.signing.sign(good.unverified.signed_bytes())),
        replace(good, unverified=replace(good.unverified, devices=())),
    ):
        assert await refused_code(client, forged) == "invalid_signature"
    await assert_unchanged(server, alice)


async def test_a_list_under_another_account_key_is_refused_even_from_the_users_own_device(server: World) -> None:
    alice, client = await server.join("alice")
    other_key = AccountKeyPair.generate(server.random.randbytes)
    assert await refused_code(client, alice.user.sign_list([alice], account=other_key)) == "account_key_changed"
    token = host_token("alice", server.clock())
    taken_over = alice.user.sign_list([], account=other_key)
    assert (await put(server, taken_over, token)).json()["code"] == "account_key_changed"
    await assert_unchanged(server, alice)


async def test_a_fork_is_refused(server: World) -> None:
    alice, client = await server.join("alice")
    await client.publish_device_list(alice.user.next_list(alice))
    forks = [
        alice.user.sign_list([], seq=2, previous_hash=alice.user.lists[0].unverified.hash()),
        alice.user.sign_list([], seq=3, previous_hash=alice.user.lists[0].unverified.hash()),
        alice.user.sign_list([], seq=3, previous_hash=DeviceListHash(bytes([7]) * 32)),
        alice.user.sign_list([], seq=1, previous_hash=DeviceListHash(bytes(32))),
        alice.user.sign_list([], seq=(1 << 63) - 1),
    ]
    for fork in forks:
        assert await refused_code(client, fork) == "device_list_conflict"
    await assert_unchanged(server, alice)


async def test_a_stranger_cannot_make_a_users_first_list(server: World) -> None:
    victim = server.user("victim")
    device = victim.device()
    await server.client(device).register_device(device.signing.public, device.identity.public)
    mallory, mallorys = await server.join("mallory")
    for user_id in (victim.user_id, UserId("nobody")):
        forged = mallory.user.sign_list([mallory], user_id=user_id, seq=1, previous_hash=DeviceListHash(bytes(32)))
        assert await refused_code(mallorys, forged) == "first_list_not_owner"
        token = host_token("mallory", server.clock())
        assert (await put(server, forged, token)).json()["code"] == "first_list_not_owner"
    await server.client(device).publish_device_list(victim.next_list(device))
    await assert_unchanged(server, device)


async def test_a_stranger_cannot_change_a_users_list(server: World) -> None:
    alice, _ = await server.join("alice")
    mallory, mallorys = await server.join("mallory")
    last = alice.user.lists[-1].unverified
    forged = mallory.user.sign_list([mallory], user_id=alice.user.user_id, seq=2, previous_hash=last.hash())
    assert await refused_code(mallorys, forged) == "account_key_changed"
    claims_alices_key = replace(forged.unverified, account_key=alice.user.account.public)
    resigned = SignedDeviceList(claims_alices_key, mallory.user.account.sign(claims_alices_key.signed_bytes()))
    assert await refused_code(mallorys, resigned) == "invalid_signature"
    await assert_unchanged(server, alice)


async def test_another_users_list_does_not_count_for_oneself(server: World) -> None:
    alice, _ = await server.join("alice")
    mallory = server.user("mallory").device()
    mallorys = server.client(mallory)
    await mallorys.register_device(mallory.signing.public, mallory.identity.public)
    stolen = replace(alice.user.lists[0], unverified=replace(alice.user.lists[0].unverified, user_id=UserId("mallory")))
    assert await refused_code(mallorys, stolen) == "invalid_signature"


async def test_a_list_with_other_keys_for_a_registered_device_is_refused(server: World) -> None:
    alice, client = await server.join("alice")
    impostor = alice.user.device()
    impostor.address = alice.address
    assert await refused_code(client, alice.user.sign_list([impostor])) == "listed_keys_differ"
    await assert_unchanged(server, alice)


async def test_a_retired_device_cannot_be_listed_again(server: World) -> None:
    alice, client = await server.join("alice")
    laptop = alice.user.device()
    await server.client(laptop).register_device(laptop.signing.public, laptop.identity.public)
    await client.publish_device_list(alice.user.next_list(alice, laptop))
    await client.publish_device_list(alice.user.next_list(alice))
    assert await refused_code(client, alice.user.sign_list([alice, laptop])) == "device_retired"
    await assert_unchanged(server, alice)


async def test_a_device_removed_from_the_list_is_cut_from_everything_at_once(server: World) -> None:
    alice, client = await server.join("alice")
    laptop = alice.user.device()
    laptops = server.client(laptop)
    await laptops.register_device(laptop.signing.public, laptop.identity.public)
    await client.publish_device_list(alice.user.next_list(alice, laptop))
    token = await laptops.device_token()
    await client.publish_device_list(alice.user.next_list(alice))
    for method, path, body in (
        ("GET", "/v1/prekeys", None),
        ("PUT", "/v1/prekeys", {}),
        ("POST", "/v1/claims", {"user_id": "alice", "request_id": "00" * 16}),
        ("GET", "/v1/device-lists?user_id=alice", None),
    ):
        response = await server.post(path, body, token, method)
        assert (response.status_code, response.json()["code"]) == (401, "device_revoked")
    body = {"device_id": str(laptop.address.device_id)}
    response = await server.post("/v1/logins", body, host_token("alice", server.clock()))
    assert (response.status_code, response.json()["code"]) == (401, "device_revoked")
