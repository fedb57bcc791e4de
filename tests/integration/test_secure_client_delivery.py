"""SecureClient over a real server: what is sent arrives, once, in order, with its events."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2ee.ports import Table
from e2ee.wire.envelope import Envelope
from tests.client_world import ClientWorld, Gate, Tap, client_world, eager_socketio, within
from tests.keyserver_world import Clock
from transport_adapters import events
from transport_adapters.base import Outgoing, Refused, SendResult
from transport_adapters.secure_client.client import TransportFactory
from transport_adapters.secure_client.outbound import READ_AHEAD, SEND_WINDOW


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path) as made:
        yield made


@pytest.fixture(params=["memory", "socketio"])
def transport(request: pytest.FixtureRequest, world: ClientWorld) -> TransportFactory:
    return eager_socketio if request.param == "socketio" else world.memory


async def test_two_who_contact_each_other_at_the_same_time_understand_each_other(
    world: ClientWorld, transport: TransportFactory
) -> None:
    alice, bob = await world.open("alice", transport=transport), await world.open("bob", transport=transport)
    await asyncio.gather(alice.client.send("bob", "from alice"), bob.client.send("alice", "from bob"))
    assert await alice.read() == ["from bob"]
    assert await bob.read() == ["from alice"]
    for text in ("second", "third"):
        await asyncio.gather(alice.client.send("bob", text), bob.client.send("alice", text))
        assert await alice.read() == await bob.read() == [text]
    assert alice.events(events.Unreadable) == bob.events(events.Unreadable) == []


async def test_messages_of_one_sender_arrive_in_the_order_of_their_sending(
    world: ClientWorld, transport: TransportFactory
) -> None:
    alice, bob = await world.open("alice", transport=transport), await world.open("bob", transport=transport)
    texts = [str(number) for number in range(150)]
    for text in texts:
        await alice.client.send("bob", text)
    assert await bob.read(len(texts)) == texts
    assert len(alice.events(events.Sent)) == len(texts)


async def test_a_burst_of_a_thousand_messages_each_way_arrives_whole_and_once(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    texts = [str(number) for number in range(1000)]

    async def say(sender: str, recipient: str) -> None:
        speaker = alice if sender == "alice" else bob
        for text in texts:
            await speaker.client.send(recipient, text)

    async with asyncio.TaskGroup() as group:
        for pair in (("alice", "bob"), ("bob", "alice")):
            group.create_task(say(*pair))
        reading = [group.create_task(each.read(len(texts))) for each in (alice, bob)]
    assert all(sorted(map(str, task.result())) == sorted(texts) for task in reading)
    for each in (alice, bob):
        await within(each.client.flushed())
        # One more is the greeting.
        assert each.count(Table.MESSAGE_IDS) == len(texts) + 1
        assert each.count(Table.INBOUND) == each.count(Table.OUTBOX) == 0


async def test_what_is_queued_while_offline_is_sent_once_online_again(world: ClientWorld) -> None:
    gate = Gate(world)
    alice, bob = await world.talking(transport=gate)
    await gate.shut()
    texts = [str(number) for number in range(40)]
    for text in texts:
        await alice.client.send("bob", text)
    assert alice.count(Table.OUTBOX) == len(texts)
    gate.reopen()
    assert await bob.read(len(texts)) == texts
    await within(alice.client.flushed())
    assert alice.count(Table.OUTBOX) == 0


async def test_an_empty_outbox_counts_as_flushed_without_a_connection(world: ClientWorld) -> None:
    gate = Gate(world)
    alice, _ = await world.talking(transport=gate)
    await within(alice.client.flushed())
    await gate.shut()
    await within(alice.client.flushed())


async def test_connections_that_end_again_and_again_lose_and_double_nothing(world: ClientWorld) -> None:
    gate = Gate(world)
    alice, bob = await world.talking(transport=gate)
    texts = [str(number) for number in range(120)]

    async def disturb() -> None:
        while (sent := len(alice.events(events.Sent))) <= len(texts):
            await gate.shut()
            gate.reopen()
            await alice.event(events.Sent, sent + 1)

    async with asyncio.TaskGroup() as group:
        group.create_task(disturb())
        for text in texts:
            await alice.client.send("bob", text)
        received = group.create_task(bob.read(len(texts)))
    assert sorted(map(str, received.result())) == sorted(texts)
    await within(alice.client.flushed())
    assert bob.count(Table.MESSAGE_IDS) == len(texts) + 1
    assert bob.events(events.Unreadable) == []


async def test_mark_read_tells_the_sender(world: ClientWorld, transport: TransportFactory) -> None:
    alice, bob = await world.open("alice", transport=transport), await world.open("bob", transport=transport)
    message_id = await alice.client.send("bob", "hello")
    message = await within(anext(bob.client))
    assert message.message_id == message_id
    await bob.client.mark_read(message)
    # Events of messages are told while the application asks for messages.
    asking = asyncio.create_task(anext(alice.client))
    receipt = await alice.event(events.Receipt)
    asking.cancel()
    assert receipt == events.Receipt(bob.client.address.user_id, True, (message_id,))
    # It is told before it is confirmed, so a crash in between repeats it instead of losing it.
    await alice.until(lambda: alice.count(Table.INBOUND) in (0, 1))


async def test_an_envelope_that_expired_at_the_relay_is_told_and_holds_up_nothing(tmp_path: Path) -> None:
    clock = Clock()
    async with client_world(tmp_path, now=clock) as world:
        gate = Gate(world)
        alice, bob = await world.open("alice"), await world.open("bob", transport=gate)
        await gate.shut()
        await alice.client.send("bob", "short-lived", ttl=5)
        await alice.client.send("bob", "long-lived")
        await within(alice.client.flushed())
        clock.pass_ms(6_000)
        await world.services.relay.tidy()
        gate.reopen()
        expired = await bob.event(events.Expired)
        assert expired.sender == alice.client.address
        assert await bob.read() == ["long-lived"]
        assert len(bob.events(events.Expired)) == 1


async def test_one_recipient_whose_sends_pause_does_not_hold_up_others(world: ClientWorld) -> None:
    tap = Tap(world)
    alice = await world.open("alice", transport=tap)
    bob, carol = await world.open("bob"), await world.open("carol")

    def refuse_bob(outgoing: Outgoing) -> SendResult | None:
        to_bob = Envelope.decode(outgoing.envelope).recipient == bob.client.address
        return Refused(outgoing.envelope_id, "inbox_full", "", 3600.0) if to_bob else None

    tap.answer = refuse_bob
    for number in range(READ_AHEAD + SEND_WINDOW):
        await alice.client.send("bob", str(number))
    await alice.client.send("carol", "through")
    assert await carol.read() == ["through"]
    # The pause is the recipient's, not the envelope's: one window met with the refusal, the others were not offered.
    assert len(tap.sent) <= 1 + SEND_WINDOW
