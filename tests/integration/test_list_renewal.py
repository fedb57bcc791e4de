"""Device lists that expire, over a real server: renewed by any device in time, and what contacts are told if not."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2ee.limits import DAY_MS, DEVICE_LIST_LIFETIME_MS, HOUR_MS
from e2ee.messenger import system_clock
from e2ee.notices import DeviceListExpired
from e2ee.wire.identifiers import UserId
from tests.client_world import Actor, ClientWorld, client_world, within
from tests.linking_world import link
from transport_adapters import events

ALICE, BOB = UserId("alice"), UserId("bob")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path) as made:
        yield made


def later(milliseconds: int, *actors: Actor) -> None:
    """Put the clocks of some devices forward."""
    for actor in actors:
        actor.client.messenger._clock = lambda: system_clock() + milliseconds


async def published(actor: Actor) -> int:
    lists = await actor.client._parts.key_server.device_lists(UserId(actor.user))
    return len(lists)


async def test_devices_that_renew_their_list_at_the_same_time_publish_one(world: ClientWorld) -> None:
    phone = await world.open("alice")
    laptop = await link(world, phone)
    before = await published(phone)
    later(DEVICE_LIST_LIFETIME_MS - DAY_MS, phone, laptop)
    await within(asyncio.gather(*(each.client._directory._renew_own_list() for each in (phone, laptop))))
    assert await published(phone) == before + 1
    for device in (phone, laptop):
        await device.client._directory.sync_own_lists()
    one, other = (device.client.messenger.own_device_list() for device in (phone, laptop))
    assert one == other
    assert not one.content.expires_at < system_clock() + 2 * DEVICE_LIST_LIFETIME_MS - 2 * DAY_MS
    assert phone.events(events.Trouble) == laptop.events(events.Trouble) == []


async def test_work_in_the_background_renews_the_list_of_a_device_that_is_online(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    later(DEVICE_LIST_LIFETIME_MS - DAY_MS, alice)
    alice.client._parts.restarted.set()
    async with asyncio.timeout(30):
        while alice.client.messenger.own_device_list().content.seq == 1:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
    await bob.client.send("alice", "under the renewed list, after a refusal")
    assert await alice.read() == ["under the renewed list, after a refusal"]


async def test_a_contact_whose_list_has_expired_is_asked_about_written_to_and_not_shown_as_verified(
    world: ClientWorld,
) -> None:
    alice, bob = await world.talking()
    await bob.client.contacts.compare("alice", await alice.client.contacts.safety_number("bob"))
    assert await bob.client.contacts.is_verified("alice")
    later(DEVICE_LIST_LIFETIME_MS, bob)
    for number in range(2):
        await bob.client.send("alice", f"number {number}")
    assert await alice.read(2) == ["number 0", "number 1"]
    assert bob.events(DeviceListExpired) == [DeviceListExpired(ALICE)]
    assert not await bob.client.contacts.is_verified("alice")

    later(DEVICE_LIST_LIFETIME_MS, alice)
    await within(alice.client._directory._renew_own_list())
    assert await bob.client.contacts.is_verified("alice"), "it is fetched before anything is shown"


async def test_a_server_that_does_not_answer_about_an_expired_list_holds_nothing_up(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    later(DEVICE_LIST_LIFETIME_MS + HOUR_MS, bob)
    world.faults.down.add("/v1/device-lists")
    await bob.client.send("alice", "all the same")
    assert await alice.read() == ["all the same"]
    assert bob.events(DeviceListExpired) == [DeviceListExpired(ALICE)]
    assert bob.events(events.Trouble) != []


async def test_lists_that_a_contact_has_not_seen_are_fetched_before_it_is_shown_as_verified(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    await bob.client.contacts.compare("alice", await alice.client.contacts.safety_number("bob"))
    for _ in range(3):
        await alice.publish(alice.change_list())
    newest = alice.client.messenger.own_device_list().signed
    bob.client.messenger.learn_device_lists(ALICE, [newest])
    assert not bob.client.messenger.contact_book.is_verified(ALICE)
    world.faults.tamper["/v1/device-lists"] = lambda fields: fields.update(device_lists=[], newest_seq=1)
    assert not await bob.client.contacts.is_verified("alice"), "a server that keeps them back"
    world.faults.tamper.clear()
    assert await bob.client.contacts.is_verified("alice")
