"""The history of a client online, and what several devices of one user tell each other, over a real server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2ee.history_book import FOREVER, Conversation, EntryState
from tests.client_world import Actor, ClientWorld, client_world, within
from tests.linking_world import link
from transport_adapters import events


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path) as made:
        yield made


async def keeping(world: ClientWorld, *users: str) -> list[Actor]:
    actors = [await world.open(user) for user in users]
    for actor in actors:
        await actor.client.history.set_retention(FOREVER)
    return actors


async def changed(stream: AsyncIterator[Conversation], unread: int, text: str | None) -> Conversation:
    """Take changes until a conversation stands as expected; what lies between may be told or not."""
    async with asyncio.timeout(30):
        async for each in stream:
            if each.unread == unread and (each.last and each.last.data) == text:
                return each
    raise AssertionError("the stream has ended")


async def test_a_conversation_is_shown_live_from_first_message_to_deletion(world: ClientWorld) -> None:
    alice, bob = await keeping(world, "alice", "bob")
    shown = bob.client.history.changes()
    waiting = asyncio.create_task(changed(shown, 2, "two"))
    for text in ("one", "two"):
        await alice.client.send("bob", text)
    assert (await waiting).peer == "alice"
    await bob.client.history.mark_read("alice")
    await changed(shown, 0, "two")
    await bob.client.send("alice", "three")
    await changed(shown, 0, "three")
    assert await bob.client.history.delete_conversation("alice") == 3
    await changed(shown, 0, None)
    assert await bob.client.history.conversations() == []


async def test_sent_messages_show_that_they_were_delivered_and_read(world: ClientWorld) -> None:
    alice, bob = await keeping(world, "alice", "bob")
    states = alice.client.history.changes()
    await alice.client.send("bob", "hello")
    [message] = await bob.take(1)

    async def until(state: EntryState) -> None:
        async with asyncio.timeout(30):
            async for each in states:
                if each.last and each.last.state is state:
                    return

    for say, state in (
        (bob.client.mark_delivered(message), EntryState.DELIVERED),
        (bob.client.mark_read(message), EntryState.READ),
    ):
        await say
        await until(state)


async def test_delivered_receipts_go_out_by_themselves_if_that_is_asked_for_and_never_to_strangers(
    world: ClientWorld,
) -> None:
    aaron, alice, bob = await keeping(world, "aaron", "alice", "bob")
    await bob.client.send("alice", "hello")
    assert await alice.read() == ["hello"]
    await alice.client.send("bob", "before bob wants it")
    assert await bob.read() == ["before bob wants it"]
    bob.client.receipts.automatic = True
    states = alice.client.history.changes()
    await aaron.client.send("bob", "are you there?")
    await alice.client.send("bob", "and now")
    assert set(await bob.read(2)) == {"are you there?", "and now"}
    async with asyncio.timeout(30):
        async for each in states:
            if each.last and (each.last.data, each.last.state) == ("and now", EntryState.DELIVERED):
                break
    [earlier] = [each for each in await alice.client.history.messages("bob") if each.data == "before bob wants it"]
    assert earlier.state is EntryState.NEW
    await within(bob.client.flushed())
    [asked] = await aaron.client.history.messages("bob")
    assert asked.state is EntryState.NEW, "who writes to a stranger does not learn that somebody is there"
    assert not [each for each in bob.events(events.Sent) if each.recipient.user_id == "aaron"]


async def test_what_is_shown_live_is_in_the_history_under_the_same_id_once(world: ClientWorld) -> None:
    alice, bob = await keeping(world, "alice", "bob")
    for number in range(20):
        await alice.client.send("bob", f"{number}")
    live = await bob.take(20)
    kept = await bob.client.history.messages("alice")
    assert [each.message_id for each in live] == [each.message_id for each in kept]


async def test_a_watcher_ends_with_its_client(world: ClientWorld) -> None:
    [alice] = await keeping(world, "alice")
    watching = asyncio.create_task(anext(alice.client.history.changes(), None))
    await asyncio.sleep(0)
    await alice.client.aclose()
    assert await within(watching) is None


async def test_marking_as_read_needs_no_network_unless_the_sender_is_told(world: ClientWorld) -> None:
    alice, bob = await keeping(world, "alice", "bob")
    await alice.client.send("bob", "hello")
    await bob.take(1)
    await bob.client.history.mark_read("alice", receipt=False)
    assert [each.unread for each in await bob.client.history.conversations()] == [0]
    await bob.client.flushed()
    assert alice.events(events.Receipt) == []


async def test_both_devices_of_a_user_hold_both_sides_of_a_conversation(world: ClientWorld) -> None:
    phone, bob = await keeping(world, "alice", "bob")
    await phone.client.send("bob", "before the laptop")
    assert await bob.read() == ["before the laptop"]
    laptop = await link(world, phone)
    await laptop.client.history.set_retention(FOREVER)
    await bob.client.send("alice", "to both")
    assert await phone.read() == await laptop.read() == ["to both"]
    await laptop.client.send("bob", "from the laptop")
    [copy] = await phone.take(1)
    assert (copy.data, copy.is_copy, copy.sender, copy.recipient) == ("from the laptop", True, "alice", "bob")
    assert await bob.read() == ["from the laptop"]
    await phone.client.history.mark_read("bob")
    reading = asyncio.create_task(anext(laptop.client))
    assert (await laptop.event(events.ReadElsewhere)).author == "bob"
    reading.cancel()
    assert [each.unread for each in await laptop.client.history.conversations()] == [0]
    kept = [each.data for each in await laptop.client.history.messages("bob")]
    assert kept == ["to both", "from the laptop"]
