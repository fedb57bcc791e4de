"""A second device of one user, over a real server: linked, written to, retired."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random

import pytest

from e2ee.errors import LinkDeclinedError, LinkExpiredError, MalformedMessageError, TooManyDevicesError
from e2ee.limits import MAX_DEVICES
from e2ee.messenger import Messenger
from e2ee.notices import ContactsShared
from e2ee.ports import Table
from e2ee.private_keys import DeviceSigningKeyPair, IdentityKeyPair
from e2ee.short_authentication import Signs
from e2ee.stores.memory import MemoryStore
from e2ee.stores.sqlite import SqliteStore
from e2ee.wire.device_list import ListedDevice
from e2ee.wire.identifiers import DeviceId, UserId
from e2ee.wire.link import LinkId
from keyserver.client import KeyServerRefusedError
from tests.client_world import ClientWorld, client_world, eager_socketio, within
from tests.contract.relay_world import eventually
from tests.linking_world import SWIFT, Screens, approve, join, link
from tests.store_files import KEY
from transport_adapters import events


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path) as made:
        yield made


async def no(_: Signs) -> bool:
    return False


async def test_a_linked_device_shows_the_same_signs_and_gets_what_is_written_to_its_user(world: ClientWorld) -> None:
    alice, bob = await world.talking(transport=eager_socketio)
    screens = Screens()
    second = await link(world, alice, screens, transport=eager_socketio)
    assert screens.new == screens.existing
    assert await second.client.devices.listed() == await alice.client.devices.listed()

    await alice.client.send("bob", "from the first")
    assert await bob.read() == ["from the first"]
    await bob.client.send("alice", "to both")
    assert await alice.read() == ["to both"]
    assert set(await second.read(2)) == {
        "from the first",
        "to both",
    }  # the first is the copy of what a device of ours sent
    await second.client.send("bob", "from the second")
    message = (await bob.take(1))[0]
    assert (message.data, message.device) == ("from the second", second.client.address)


async def test_contacts_and_whom_a_person_verified_follow_and_later_decisions_too(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    await within(alice.client.contacts.compare("bob", await bob.client.contacts.safety_number("alice")))
    second = await link(world, alice)
    assert (await second.event(ContactsShared)).users == ("bob",)
    assert await second.client.contacts.is_verified("bob")

    await within(second.client.contacts.withdraw("bob"))
    await alice.event(ContactsShared)
    assert not await alice.client.contacts.is_verified("bob")


async def test_every_device_is_told_when_another_joins(world: ClientWorld) -> None:
    alice = await world.open("alice")
    second = await link(world, alice)
    added = alice.events(events.OwnDevicesChanged)[-1]
    assert (added.added, added.removed) == ((second.client.address.device_id,), ())
    third = await link(world, second)
    await alice.client._directory.sync_own_lists()
    assert alice.events(events.OwnDevicesChanged)[-1].added == (third.client.address.device_id,)


async def test_a_new_device_has_sessions_with_all_others_before_it_says_anything(
    world: ClientWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("e2ee.tending.MEET_OWN_DEVICE_MS", 0)
    phone = await world.open("alice")
    laptop = await link(world, phone)
    tablet = await link(world, laptop)
    messenger = tablet.client.messenger
    await eventually(lambda: messenger.missing_sessions(messenger.address.user_id) == ())
    await eventually(lambda: len(messenger.outbox.entries()) == 0)
    bob = await world.open("bob")
    await tablet.client.send("bob", "hello")
    assert await bob.read() == ["hello"]
    for device in (phone, laptop):
        assert await device.read() == ["hello"]


@pytest.mark.parametrize("who", ["new", "existing"])
async def test_a_link_that_one_person_declines_changes_nothing(world: ClientWorld, tmp_path: Path, who: str) -> None:
    alice, screens, path = await world.open("alice"), Screens(), tmp_path / "new.db"
    before = alice.client.messenger.own_device_list()
    confirm = no if who == "new" else None
    joining = asyncio.create_task(join(world, "alice", screens, store=path, key=KEY, confirm=confirm))
    approving = asyncio.create_task(approve(alice, screens, no if who == "existing" else None))
    declined, waiting = (joining, approving) if who == "new" else (approving, joining)
    with pytest.raises(LinkDeclinedError):
        await declined
    waiting.cancel()
    await asyncio.wait([waiting])
    assert alice.client.messenger.own_device_list() == before
    with closing(SqliteStore.open(path, key=KEY)) as store, store.read() as tx:
        assert all(tx.count(table) == 0 for table in Table)


async def test_a_store_that_holds_an_account_is_not_joined_to_another(world: ClientWorld) -> None:
    await world.open("alice")
    store = MemoryStore()
    Messenger.create(store, UserId("bob"))
    with pytest.raises(ValueError, match="holds a device of bob"):
        await join(world, "alice", Screens(), store=store)


async def test_one_code_lets_one_device_in(world: ClientWorld) -> None:
    alice, screens = await world.open("alice"), Screens()
    await link(world, alice, screens)
    with pytest.raises(LinkExpiredError):
        await approve(alice, screens)


async def test_a_mistyped_or_unknown_code_is_refused_before_anything_is_shown(world: ClientWorld) -> None:
    alice = await world.open("alice")
    with pytest.raises(MalformedMessageError):
        await alice.client.devices.approve("A" * 32, no, pace=SWIFT)
    unknown = Screens()
    unknown.show(LinkId(bytes(16)))
    with pytest.raises(KeyServerRefusedError, match="link_not_found"):
        await approve(alice, unknown)


async def test_another_users_login_does_not_see_the_link(world: ClientWorld) -> None:
    await world.open("alice")
    mallory, screens = await world.open("mallory"), Screens()
    joining = asyncio.create_task(join(world, "alice", screens))
    await within(screens.code)
    with pytest.raises(KeyServerRefusedError, match="link_not_found"):
        await approve(mallory, screens)
    joining.cancel()
    await asyncio.wait([joining])


async def test_a_retired_device_is_cut_and_gets_nothing_any_more(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    second = await link(world, alice)
    await alice.client.devices.retire(second.client.address.device_id)
    ended = await second.event(events.Ended)
    assert ended.code == "device_revoked"
    await alice.client.send("bob", "one device less")
    assert await bob.read() == ["one device less"]
    await bob.client.send("alice", "to the one that is left")
    assert await alice.read() == ["to the one that is left"]
    assert all(each.recipient == alice.client.address for each in bob.events(events.Sent))
    with pytest.raises(KeyServerRefusedError, match="device_revoked"):
        await second.client._parts.key_server.prekey_counts()


async def test_what_a_retired_device_sent_before_is_shown_as_from_a_removed_device(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    second = await link(world, alice)
    await second.client.send("bob", "from the second")
    await within(second.client.flushed())
    await alice.client.devices.retire(second.client.address.device_id)
    await alice.client.send("bob", "from the first")
    await bob.client._directory.fetch_lists(UserId("alice"))
    shown = {message.data: message.from_removed_device for message in await bob.take(2)}
    assert shown == {"from the second": True, "from the first": False}


async def test_a_device_does_not_retire_itself(world: ClientWorld) -> None:
    alice = await world.open("alice")
    with pytest.raises(ValueError, match="itself"):
        await alice.client.devices.retire(alice.client.address.device_id)


async def test_there_are_at_most_ten_devices(world: ClientWorld) -> None:
    alice = await world.open("alice")
    own, random = alice.client.messenger.own_devices, Random(1).randbytes
    for _ in range(MAX_DEVICES - 1):
        signing_key, identity_key = (
            DeviceSigningKeyPair.generate(random).public,
            IdentityKeyPair.generate(random).public,
        )
        listed = ListedDevice(DeviceId(random(16)), signing_key, identity_key)
        await alice.client._directory.change_own_list(partial(own.draft_with, listed))
    screens = Screens()
    joining = asyncio.create_task(join(world, "alice", screens))
    with pytest.raises(TooManyDevicesError):
        await approve(alice, screens)
    joining.cancel()
    await asyncio.wait([joining])
