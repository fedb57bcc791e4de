"""Somebody lost all devices and the recovery code, and comes back with nothing but a login, over a real server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from e2ee.errors import AccountKeyChangedError
from e2ee.ports import Store
from e2ee.stores.memory import MemoryStore
from e2ee.stores.sqlite import SqliteStore
from e2ee.wire.identifiers import UserId
from keyserver.client import DeviceListConflictError, KeyServerUnavailableError
from tests.client_world import QUICK, Actor, ClientWorld, client_world, within
from tests.integration.test_reset_and_restore import Backup, server_holds_all_of
from tests.linking_world import link
from tests.store_files import KEY
from transport_adapters import events
from transport_adapters.secure_client.client import SecureClient
from transport_adapters.secure_client.recovering import NoAccountError

ALICE = UserId("alice")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path) as made:
        yield made


async def start_over(world: ClientWorld, store: Store | Path | None = None, **options: Any) -> Actor:
    """Make a new device of Alice, and bring it online."""
    told: list[events.Event] = []
    heard = asyncio.Event()

    def note(event: events.Event) -> None:
        told.append(event)
        heard.set()

    kept = store or MemoryStore()
    given: dict[str, Any] = {"server": world.url, "token_provider": world.token("alice"), "transport": world.memory}
    client = await within(
        SecureClient.start_over(store=kept, user="alice", on_event=note, pace=QUICK, **given | options)
    )
    world._clients.push_async_callback(client.aclose)
    await within(client.online())
    assert not isinstance(kept, Path)
    return Actor(client, kept, told, heard)


async def test_contacts_are_stopped_until_they_accept_and_whatever_device_was_left_is_out(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    laptop = await link(world, alice)
    again = await start_over(world)
    for lost in (alice, laptop):
        assert (await lost.event(events.Ended)).code == "device_revoked"
    await again.client.send("bob", "only my login is left")
    needed = await bob.event(events.TrustNeeded)
    assert needed.old_safety_number != needed.new_safety_number
    with pytest.raises(AccountKeyChangedError):
        await bob.client.send("alice", "to whom?")
    assert needed.new_safety_number == await again.client.contacts.safety_number("bob")
    await bob.client.contacts.accept_change("alice", needed.new_safety_number)
    assert await bob.read() == ["only my login is left"]
    await bob.client.send("alice", "welcome back")
    assert await again.read() == ["welcome back"]
    assert await again.client.devices.listed() == [again.client.address.device_id]


async def test_a_contact_who_writes_first_is_stopped_as_well(world: ClientWorld) -> None:
    _, bob = await world.talking()
    again = await start_over(world)
    await bob.client.send("alice", "queued before bob knows")  # the relay refuses it under the old list
    await bob.until(lambda: bob.client.messenger.contact_book.change(ALICE) is not None)
    change = await bob.client.contacts.change("alice")
    assert change is not None
    with pytest.raises(AccountKeyChangedError):
        await bob.client.send("alice", "to whom?")
    await bob.client.contacts.accept_change("alice", change.new_safety_number)
    await bob.client.send("alice", "to you")
    assert await again.read() == ["to you"]


async def test_a_lost_answer_is_made_good_when_the_client_is_opened_again(world: ClientWorld, tmp_path: Path) -> None:
    await world.talking()

    def lose(_: dict[str, Any]) -> None:
        raise ConnectionError

    path = tmp_path / "alice.db"
    world.faults.tamper["/v1/account-resets"] = lose
    with pytest.raises(KeyServerUnavailableError):
        await start_over(world, path, key=KEY)
    world.faults.tamper.clear()
    again = await world.open("alice", store=SqliteStore.open(path, key=KEY))
    assert not again.client.messenger.registration.is_starting_over()
    assert await server_holds_all_of(again)


async def test_the_list_of_somebody_who_was_faster_is_followed(world: ClientWorld) -> None:
    """A device that was not lost after all renews the list at that moment."""
    alice, _ = await world.talking()

    await alice.publish(alice.change_list())

    def a_moment_ago(fields: dict[str, Any]) -> None:
        fields.update(device_lists=fields["device_lists"][:1], newest_seq=1)
        world.faults.tamper.clear()

    world.faults.tamper["/v1/device-lists"] = a_moment_ago
    again = await start_over(world)
    assert again.client.messenger.own_device_list().content.seq == 3
    assert await server_holds_all_of(again)


async def test_a_server_that_speaks_of_a_faster_one_and_shows_no_list_is_refused_by_name(world: ClientWorld) -> None:
    alice, _ = await world.talking()
    await alice.publish(alice.change_list())

    def a_moment_ago(fields: dict[str, Any]) -> None:
        fields.update(device_lists=fields["device_lists"][:1], newest_seq=1)
        world.faults.tamper["/v1/device-lists"] = nothing

    def nothing(fields: dict[str, Any]) -> None:
        fields.update(device_lists=[], newest_seq=0)

    world.faults.tamper["/v1/device-lists"] = a_moment_ago
    with pytest.raises(DeviceListConflictError):
        await start_over(world)


async def test_a_server_that_was_restored_to_before_it_gets_the_new_key_again(world: ClientWorld) -> None:
    await world.talking()
    backup = await Backup.of(world)
    again = await start_over(world)
    await backup.put_back(world)
    assert not await server_holds_all_of(again)
    await within(again.client._directory.sync_own_lists())
    assert await server_holds_all_of(again)


async def test_without_an_account_there_is_nothing_to_reset_and_no_store_is_made(
    world: ClientWorld, tmp_path: Path
) -> None:
    path = tmp_path / "new.db"
    with pytest.raises(NoAccountError):
        await start_over(world, path, key=KEY)
    assert not path.exists()
