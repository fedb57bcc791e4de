"""An account was reset, and the key server lost lists of before and after it in a restore."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Connection, Row, delete, select, update

from e2ee.errors import AccountKeyChangedError
from e2ee.primitives.rng import system_rng
from e2ee.recovery import RecoveryCode
from e2ee.stores.memory import MemoryStore
from e2ee.wire.identifiers import UserId
from keyserver.client import KeyServerRefusedError
from keyserver.tables import device_lists, users
from tests.client_world import QUICK, Actor, ClientWorld, client_world, within
from tests.linking_world import link
from transport_adapters import events
from transport_adapters.secure_client.client import SecureClient

ALICE = UserId("alice")


class Backup(NamedTuple):
    """What the server holds of Alice's account."""

    user: Row[tuple[object, ...]]

    @classmethod
    async def of(cls, world: ClientWorld) -> "Backup":
        def look(connection: Connection) -> Row[tuple[object, ...]]:
            return connection.execute(select(users).where(users.c.user_id == ALICE)).one()

        return cls(await world.services.database.read(look))

    async def put_back(self, world: ClientWorld) -> None:
        def write(connection: Connection) -> None:
            kept = self.user._mapping
            later = device_lists.c.user_id == ALICE, device_lists.c.seq > kept["list_seq"]
            connection.execute(delete(device_lists).where(*later))
            connection.execute(update(users).where(users.c.user_id == ALICE).values(**kept))

        await world.services.database.write(write)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path) as made:
        yield made


async def server_holds_all_of(alice: Actor) -> bool:
    own = alice.client.messenger.own_devices
    held = await alice.client._parts.key_server.device_lists(ALICE)
    return held == own.lists_after(0)


@pytest.mark.parametrize("backed_up", ["before the reset", "after the reset", "between two resets"])
async def test_a_server_gets_back_a_chain_with_a_reset_in_it(world: ClientWorld, backed_up: str) -> None:
    alice = await world.open("alice")
    if backed_up != "before the reset":
        await alice.client.devices.reset_account()
    backup = await Backup.of(world)
    if backed_up == "after the reset":
        listed = alice.client.messenger.own_device_list().content.devices
        await alice.publish(alice.change_list(*listed))
    else:
        await alice.client.devices.reset_account()
    await backup.put_back(world)
    assert not await server_holds_all_of(alice)
    await within(alice.client._directory.sync_own_lists())
    assert await server_holds_all_of(alice)
    counts = await alice.client._parts.key_server.prekey_counts()
    assert counts.signed_prekey_id is not None, "the device is still one of the account"


async def test_a_contact_who_knows_the_last_list_of_a_key_alone_locks_nobody_out(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    backup = await Backup.of(world)
    await alice.client.devices.reset_account()
    with pytest.raises(AccountKeyChangedError):
        await bob.client._directory.fetch_lists(ALICE)
    await bob.client.contacts.decline_change("alice")
    closing = bob.client.messenger.contact(ALICE)
    assert closing is not None
    assert closing.device_list.content.closes
    await backup.put_back(world)
    await within(bob.client._directory._give_back(ALICE))
    with pytest.raises(KeyServerRefusedError, match="reset_lists"):
        await within(bob.client._parts.key_server.publish_device_list(closing.device_list.signed))
    await within(alice.client._directory.sync_own_lists())
    assert await server_holds_all_of(alice)


async def empty(world: ClientWorld) -> None:
    """The server loses everything it had of Alice, and there is no backup."""

    def forget(connection: Connection) -> None:
        for table in reversed(users.metadata.sorted_tables):
            if "user_id" in table.columns:
                connection.execute(delete(table).where(table.c.user_id == ALICE))

    await world.services.database.write(forget)


async def test_an_emptied_server_gets_the_whole_chain_from_a_device_that_was_linked_late(world: ClientWorld) -> None:
    """It brought the newest list along; the ones before it the device has fetched and checked while it could."""
    alice = await world.open("alice")
    await alice.client.devices.reset_account()
    await link(world, alice)
    third = await link(world, alice)
    chain = alice.client.messenger.own_devices.lists_after(0)
    assert len(chain) == 5
    assert third.client.messenger.own_devices.lists_after(0) == chain
    await alice.client.aclose()
    await empty(world)
    await within(third.client._directory.sync_own_lists())
    assert await server_holds_all_of(third)


async def test_an_account_is_recovered_at_an_emptied_server_and_contacts_notice_nothing(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    await alice.publish(alice.change_list())
    code = RecoveryCode.generate(system_rng)
    export = alice.client.messenger.backup.without_history(code)
    await alice.client.aclose()
    await empty(world)
    options: dict[str, Any] = {
        "server": world.url,
        "token_provider": world.token("alice"),
        "transport": world.memory,
        "pace": QUICK,
    }
    again = await within(SecureClient.recover(store=MemoryStore(), user="alice", code=code, export=export, **options))
    world._clients.push_async_callback(again.aclose)
    assert [each.unverified.seq for each in await again._parts.key_server.device_lists(ALICE)] == [2, 3]
    await again.send("bob", "back again")
    assert await bob.read() == ["back again"]
    assert bob.events(events.TrustNeeded) == []
