"""An account was reset, and the key server lost lists of before and after it in a restore."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import Connection, Row, delete, select, update

from e2ee.errors import AccountKeyChangedError
from e2ee.wire.identifiers import UserId
from keyserver.client import KeyServerRefusedError
from keyserver.tables import device_lists, users
from tests.client_world import Actor, ClientWorld, client_world, within

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
