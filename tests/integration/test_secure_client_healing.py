"""SecureClients that lost sessions or were restored from an old copy, over a real relay and a real key server."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2ee import notices
from e2ee.ports import Store, Table
from e2ee.stores import session_records
from e2ee.stores.sqlite import SqliteStore
from tests.client_world import Actor, ClientWorld, client_world, within
from tests.store_files import KEY
from transport_adapters import events


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path) as made:
        yield made


def forget_sessions(store: Store) -> None:
    with store.write() as tx:
        for record in tx.scan(Table.SESSIONS):
            tx.delete(Table.SESSIONS, record.key)


def sending_session_id(actor: Actor, peer: Actor) -> bytes:
    with actor.store.read() as tx:
        sessions = session_records.sessions_with(tx, peer.client.address)
    return next(session.session_id for session in sessions if not session.dead)


def heard(actor: Actor, kind: type[notices.Notice]) -> bool:
    return any(isinstance(event, kind) for event in actor.told)


async def test_messages_of_a_lost_session_are_asked_for_and_arrive(world: ClientWorld, tmp_path: Path) -> None:
    path = tmp_path / "bob.db"
    alice = await world.open("alice")
    bob = await world.open("bob", store=SqliteStore.create(path, key=KEY))
    for sender, recipient in ((alice, bob), (bob, alice)):
        await sender.client.send(recipient.user, "hello")
        assert await recipient.read() == ["hello"]
    await within(bob.client.aclose())
    # While bob is away, so that all of it is there when he asks: a device asks once a minute.
    texts = [f"lost {number}" for number in range(5)]
    for text in texts:
        await alice.client.send("bob", text)
    await within(alice.client.flushed())

    store = SqliteStore.open(path, key=KEY)
    forget_sessions(store)
    bob = await world.open("bob", store=store)
    assert sorted(map(str, await bob.read(5))) == texts
    assert heard(bob, notices.AskedAgain)
    assert heard(alice, notices.SessionReplaced)
    assert heard(alice, notices.MessageResent)
    await bob.client.send("alice", "read them all")
    assert await alice.read() == ["read them all"]
    assert sending_session_id(alice, bob) == sending_session_id(bob, alice)


async def test_a_client_restored_from_an_old_copy_converges_and_nothing_is_lost(
    world: ClientWorld, tmp_path: Path
) -> None:
    path, copy = tmp_path / "alice.db", tmp_path / "copy.db"
    alice = await world.open("alice", store=SqliteStore.create(path, key=KEY))
    bob = await world.open("bob")
    for sender, recipient in ((alice, bob), (bob, alice)):
        await sender.client.send(recipient.user, "hello")
        assert await recipient.read() == ["hello"]
    await within(alice.client.aclose())
    shutil.copy(path, copy)

    alice = await world.open("alice", store=SqliteStore.open(path, key=KEY))
    for number in range(3):
        await alice.client.send("bob", f"after the copy {number}")
        await bob.client.send("alice", f"answer {number}")
    assert len(await bob.read(3)) == len(await alice.read(3)) == 3
    await within(alice.client.aclose())
    await bob.client.send("alice", "while alice was away")
    await within(bob.client.flushed())

    path.unlink()
    shutil.copy(copy, path)
    alice = await world.open("alice", store=SqliteStore.open(path, key=KEY))
    await alice.until(lambda: heard(alice, notices.StoreRolledBack))
    await alice.client.send("bob", "from the restored store")
    assert await alice.read() == ["while alice was away"]
    assert await bob.read() == ["from the restored store"]
    for number in range(3):
        await alice.client.send("bob", f"to {number}")
        await bob.client.send("alice", f"fro {number}")
    assert len(await bob.read(3)) == len(await alice.read(3)) == 3
    assert sending_session_id(alice, bob) == sending_session_id(bob, alice)
    assert alice.events(events.Ended) == bob.events(events.Ended) == []


async def test_a_client_that_is_opened_again_is_not_taken_for_a_restored_one(
    world: ClientWorld, tmp_path: Path
) -> None:
    path = tmp_path / "alice.db"
    alice = await world.open("alice", store=SqliteStore.create(path, key=KEY))
    bob = await world.open("bob")
    for number in range(4):
        await alice.client.send("bob", str(number))
        assert await bob.read() == [str(number)]
        await bob.client.send("alice", str(number))
        assert await alice.read() == [str(number)]
        await within(alice.client.aclose())
        alice = await world.open("alice", store=SqliteStore.open(path, key=KEY))
        await within(alice.client.caught_up())
        assert not heard(alice, notices.StoreRolledBack)
