"""Publishing and reading device lists, over HTTP against the application in this process."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2ee.wire.identifiers import UserId
from keyserver.client import DeviceListConflictError, KeyServerRefusedError, RateLimitedError
from tests.databases import each_database  # noqa: F401 - a fixture
from tests.keyserver_world import TestDevice, World, world


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def second_device(server: World, first: TestDevice) -> TestDevice:
    device = first.user.device()
    await server.client(device).register_device(device.signing.public, device.identity.public)
    return device


async def test_lists_are_served_with_their_history_byte_for_byte(server: World) -> None:
    phone, client = await server.join("alice")
    laptop = await second_device(server, phone)
    await client.publish_device_list(phone.user.next_list(phone, laptop))
    await client.publish_device_list(phone.user.next_list(phone))
    _, bobs = await server.join("bob")
    assert await bobs.device_lists(phone.user.user_id) == tuple(phone.user.lists)
    assert await bobs.device_lists(phone.user.user_id, from_seq=3) == (phone.user.lists[2],)
    assert await bobs.device_lists(phone.user.user_id, from_seq=4) == ()


async def test_a_long_history_comes_in_pages_and_in_one_piece(tmp_path: Path) -> None:
    async with world(tmp_path, list_burst=200) as server:
        phone, client = await server.join("alice")
        for _ in range(129):
            await client.publish_device_list(phone.user.next_list(phone))
        assert await client.device_lists(phone.user.user_id) == tuple(phone.user.lists)


async def test_an_unknown_user_has_no_lists(server: World) -> None:
    _, client = await server.join("alice")
    assert await client.device_lists(UserId("nobody")) == ()


async def test_publishing_a_list_again_changes_nothing_even_when_newer_ones_exist(server: World) -> None:
    phone, client = await server.join("alice")
    for signed in [phone.user.lists[0], phone.user.next_list(phone), phone.user.lists[0], phone.user.lists[1]]:
        await client.publish_device_list(signed)
    assert await client.device_lists(phone.user.user_id) == tuple(phone.user.lists)


async def test_of_two_successors_one_wins_and_the_loser_learns_the_position(server: World) -> None:
    phone, client = await server.join("alice")
    laptop = await second_device(server, phone)
    drafts = [phone.user.sign_list([phone, laptop]), phone.user.sign_list([phone])]
    results = await asyncio.gather(*(client.publish_device_list(draft) for draft in drafts), return_exceptions=True)
    conflicts = [result for result in results if isinstance(result, DeviceListConflictError)]
    assert len(conflicts) == 1
    (_, newest) = await client.device_lists(phone.user.user_id)
    assert newest in drafts
    assert (conflicts[0].seq, conflicts[0].list_hash) == (2, newest.unverified.hash().raw)


async def test_a_list_with_a_gap_is_refused_with_the_position(server: World) -> None:
    phone, client = await server.join("alice")
    phone.user.next_list(phone)
    with pytest.raises(DeviceListConflictError) as refused:
        await client.publish_device_list(phone.user.next_list(phone))
    assert refused.value.seq == 1
    for signed in phone.user.lists:  # the missing links first, then it goes in
        await client.publish_device_list(signed)


async def test_a_server_that_has_no_list_of_a_user_takes_any_from_its_owner_alone_and_goes_on_from_there(
    server: World,
) -> None:
    """It was emptied, and what the owner has begins in the middle."""
    owner = server.user("alice")
    device = owner.device()
    for _ in range(4):
        owner.next_list(device)
    client = server.client(device)
    await client.register_device(device.signing.public, device.identity.public)
    _, bobs = await server.join("bob")
    with pytest.raises(KeyServerRefusedError, match="first_list_not_owner"):
        await bobs.publish_device_list(owner.lists[2])
    await client.publish_device_list(owner.lists[2])
    assert await bobs.device_lists(owner.user_id) == (owner.lists[2],)
    assert await bobs.device_lists(owner.user_id, from_seq=2) == (owner.lists[2],)
    with pytest.raises(DeviceListConflictError):
        await client.publish_device_list(owner.lists[1])
    await bobs.publish_device_list(owner.lists[3])
    assert await client.device_lists(owner.user_id) == tuple(owner.lists[2:])
    await client.publish_prekeys(device.upload())
    assert len((await bobs.claim(owner.user_id, bytes(16))).bundles) == 1


async def test_a_contact_may_bring_a_correctly_chained_list(server: World) -> None:
    phone, client = await server.join("alice")
    _, bobs = await server.join("bob")
    await bobs.publish_device_list(phone.user.next_list(phone))
    assert len(await client.device_lists(phone.user.user_id)) == 2


async def test_a_device_that_leaves_the_list_loses_tokens_and_prekeys(server: World) -> None:
    phone, client = await server.join("alice")
    laptop = await second_device(server, phone)
    await client.publish_device_list(phone.user.next_list(phone, laptop))
    laptops = server.client(laptop)
    await laptops.publish_prekeys(laptop.upload())
    assert len((await client.claim(phone.user.user_id, bytes(16))).bundles) == 1
    await client.publish_device_list(phone.user.next_list(phone))
    assert (await client.claim(phone.user.user_id, bytes([1]) * 16)).bundles == ()
    with pytest.raises(KeyServerRefusedError) as refused:
        await laptops.prekey_counts()
    assert refused.value.code == "device_revoked"
    with pytest.raises(KeyServerRefusedError) as refused:
        await server.client(laptop).device_token()
    assert refused.value.code == "device_revoked"


async def test_a_pending_device_outlives_lists_without_it(server: World) -> None:
    phone, client = await server.join("alice")
    laptop = await second_device(server, phone)
    await client.publish_device_list(phone.user.next_list(phone))
    await server.client(laptop).publish_prekeys(laptop.upload())
    await client.publish_device_list(phone.user.next_list(phone, laptop))
    assert len((await client.claim(phone.user.user_id, bytes(16))).bundles) == 1


async def test_a_list_may_name_a_device_that_is_not_registered_and_it_is_merely_unavailable(server: World) -> None:
    phone, client = await server.join("alice")
    ghost = phone.user.device()
    await client.publish_device_list(phone.user.next_list(phone, ghost))
    claim = await client.claim(phone.user.user_id, bytes(16), [ghost.address.device_id])
    assert claim.device_list == phone.user.lists[-1]
    assert claim.bundles == ()


async def test_new_lists_of_one_user_are_limited_and_repeated_ones_are_not(tmp_path: Path) -> None:
    async with world(tmp_path, list_burst=2, list_seconds=60) as server:
        phone, client = await server.join("alice")
        await client.publish_device_list(phone.user.next_list(phone))
        with pytest.raises(RateLimitedError):
            await client.publish_device_list(phone.user.sign_list([phone]))
        await client.publish_device_list(phone.user.lists[-1])
        server.clock.pass_ms(60_000)
        await client.publish_device_list(phone.user.next_list(phone))
