"""Contacts through a whole client: what a changed account key sets in motion."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from e2ee.errors import AccountKeyChangedError
from e2ee.messenger import Messenger
from e2ee.notices import ContactsShared
from e2ee.ports import Table
from e2ee.stores import records
from e2ee.stores.memory import MemoryStore
from e2ee.stores.sqlite import SqliteStore
from e2ee.stores.trust_records import Decision, TrustPolicy
from e2ee.wire.identifiers import UserId
from keyserver.tables import users
from tests.client_world import Actor, ClientWorld, client_world, within
from tests.linking_world import link
from tests.store_files import KEY
from transport_adapters import events


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path) as made:
        yield made


async def reinstalled(world: ClientWorld, old: Actor) -> Actor:
    """The same user with a new account key, whose list follows the old one at the server: everything was lost."""
    last = old.client.messenger.own_device_list().content
    await within(old.client.aclose())
    store = MemoryStore()
    messenger = Messenger.create(store, UserId(old.user))
    first = messenger.own_device_list().content
    follows = messenger.account.sign_device_list(replace(first, seq=last.seq + 1, previous_hash=last.hash()))
    with store.write() as tx:
        records.save_own_device_list(tx, follows)
    return await world.open(old.user, store=store)


async def forget_account_key(world: ClientWorld, user: str) -> None:
    """What the server does when a user resets the account; there is no such call yet."""
    statement = update(users).where(users.c.user_id == user).values(account_key=None)
    await world.services.database.write(lambda connection: connection.execute(statement))


async def lost_everything(world: ClientWorld) -> tuple[Actor, Actor]:
    """Alice, and Bob under a new account key, who has written to her."""
    alice = await world.open("alice", store=SqliteStore.create(world.directory / "alice.db", key=KEY))
    bob = await world.open("bob")
    for sender, recipient in ((alice, bob), (bob, alice)):
        await sender.client.send(recipient.user, "hello")
        assert await recipient.read() == ["hello"]
    await forget_account_key(world, "bob")
    again = await reinstalled(world, bob)
    await again.client.send("alice", "it is me, with a new key")
    return alice, again


async def test_a_message_under_a_changed_key_waits_until_its_number_is_accepted(world: ClientWorld) -> None:
    alice, bob = await lost_everything(world)
    needed = await alice.event(events.TrustNeeded)
    assert needed.user_id == "bob"
    assert needed.new_safety_number == await within(bob.client.contacts.safety_number("alice"))
    assert alice.count(Table.INBOUND) == 0
    with pytest.raises(AccountKeyChangedError):
        await alice.client.send("bob", "to whom?")

    await within(alice.client.contacts.accept_change("bob", needed.new_safety_number))
    assert await alice.read() == ["it is me, with a new key"]
    await alice.client.send("bob", "welcome back")
    assert await bob.read() == ["welcome back"]
    assert not await alice.client.contacts.is_verified("bob")


async def test_what_waits_for_a_decision_is_told_again_after_a_restart(world: ClientWorld) -> None:
    alice, _ = await lost_everything(world)
    needed = await alice.event(events.TrustNeeded)
    await within(alice.client.aclose())
    again = await world.open("alice", store=SqliteStore.open(world.directory / "alice.db", key=KEY))
    assert await again.event(events.TrustNeeded) == needed


async def test_an_accepted_message_is_read_although_the_client_died_between(world: ClientWorld) -> None:
    alice, _ = await lost_everything(world)
    needed = await alice.event(events.TrustNeeded)
    await within(alice.client.aclose())
    store = SqliteStore.open(world.directory / "alice.db", key=KEY)
    Messenger.open(store).contact_book.accept_change(UserId("bob"), needed.new_safety_number)
    again = await world.open("alice", store=store)
    assert await again.read() == ["it is me, with a new key"]


async def test_an_unattended_client_takes_the_new_key_and_keeps_a_record(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    await within(alice.client.contacts.set_policy(TrustPolicy.UNATTENDED))
    await forget_account_key(world, "bob")
    again = await reinstalled(world, bob)
    await again.client.send("alice", "it is me, with a new key")
    assert await alice.read() == ["it is me, with a new key"]
    decided = [each.decision for each in await within(alice.client.contacts.decisions("bob"))]
    assert decided == [Decision.PINNED, Decision.CHANGE_SEEN, Decision.CHANGE_ACCEPTED]
    assert not alice.events(events.TrustNeeded)


async def test_two_devices_that_know_different_keys_of_a_user_ask_their_person(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    second = await link(world, alice)
    await second.event(ContactsShared)
    impostor = Messenger.create(MemoryStore(), UserId("carol")).own_device_list().signed
    second.client.messenger.learn_device_lists(UserId("carol"), [impostor])
    carol = await world.open("carol")
    await alice.client.send("carol", "hello")
    await within(alice.client.contacts.compare("carol", await alice.client.contacts.safety_number("carol")))

    needed = await second.event(events.TrustNeeded)
    assert needed.old_safety_number == await alice.client.contacts.safety_number("carol")
    with pytest.raises(AccountKeyChangedError):
        await second.client.send("carol", "to whom?")
    await second.client.contacts.decline_change("carol")
    await second.client.send("carol", "to you")
    assert await carol.read(2) == ["hello", "to you"]
    assert bob.events(events.TrustNeeded) == []
