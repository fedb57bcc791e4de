"""Calls over a real server: two clients ring, answer, miss each other; nothing holds a ring up, and none comes late."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2ee.limits import MAX_CALL_DATA
from e2ee.ports import Table
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import EnvelopeId
from tests.client_world import QUICK, Actor, ClientWorld, Gate, client_world, eager_socketio, within
from tests.contract.relay_world import PATIENT, FrameClient, RelayWorld, eventually, relay_world
from tests.keyserver_world import Clock
from transport_adapters import events
from transport_adapters.frames import Deliver
from transport_adapters.secure_client.call_states import CallEnd, CallState
from transport_adapters.secure_client.calls import Call
from transport_adapters.secure_client.client import TransportFactory
from transport_adapters.server.ports import OK
from transport_adapters.server.posting import Posted, Stored

SHORT = replace(QUICK, ring=0.3)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path) as made:
        yield made


@pytest.fixture(params=["memory", "socketio"])
def transport(request: pytest.FixtureRequest, world: ClientWorld) -> TransportFactory:
    return eager_socketio if request.param == "socketio" else world.memory


async def rung(actor: Actor) -> Call:
    return (await actor.event(events.CallRinging)).call


async def until(actor: Actor, call: Call, state: CallState) -> None:
    await actor.until(lambda: call.state is state)


async def test_a_call_between_strangers_is_answered_and_ended(world: ClientWorld, transport: TransportFactory) -> None:
    alice, bob = await world.open("alice", transport=transport), await world.open("bob", transport=transport)
    offer, answer = b"o" * MAX_CALL_DATA, b"a" * MAX_CALL_DATA
    ours = await alice.client.call("bob", offer)
    theirs = await rung(bob)
    assert (theirs.user_id, theirs.device, theirs.data) == ("alice", alice.client.address, offer)
    await theirs.accept(answer)
    await until(alice, ours, CallState.ACTIVE)
    await until(bob, theirs, CallState.ACTIVE)
    assert (ours.device, ours.data) == (bob.client.address, answer)
    await theirs.hang_up()
    assert await within(ours.ended()) is CallEnd.HUNG_UP
    assert bob.count(Table.INBOUND) == alice.count(Table.INBOUND) == 0
    assert alice.events(events.SendFailed) == []


async def test_an_unanswered_call_is_a_missed_one_for_who_comes_online_later(world: ClientWorld) -> None:
    gate = Gate(world)
    alice, bob = await world.talking(pace=SHORT, transport=gate)
    caller = await world.open("carol", pace=SHORT)
    await gate.shut()
    call = await caller.client.call("bob")
    assert await within(call.ended()) is CallEnd.UNANSWERED
    await eventually(lambda: caller.count(Table.SENT) == 3)
    await within(caller.client.flushed())
    gate.reopen()
    await alice.client.send("bob", "carol tried to call you")
    assert await bob.read() == ["carol tried to call you"]
    missed = bob.events(events.CallMissed)
    assert [(each.user_id, each.call_id) for each in missed] == [("carol", call.call_id)]
    assert [event.call.end for event in bob.events(events.CallChanged)] == [CallEnd.MISSED]


async def test_a_ring_does_not_wait_for_messages_that_the_application_has_not_read(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    carol = await world.open("carol")
    for number in range(40):
        await carol.client.send("bob", str(number))
    await within(carol.client.flushed())
    await alice.client.call("bob")
    await rung(bob)
    assert bob.count(Table.INBOUND) > 0


async def test_two_who_call_each_other_at_once_have_one_call(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    one, two = await asyncio.gather(alice.client.call("bob"), bob.client.call("alice"))
    loser, winning = (bob, one) if one.call_id.raw < two.call_id.raw else (alice, two)
    theirs = await rung(loser)
    assert (theirs.call_id, theirs.glare) == (winning.call_id, True)
    await theirs.accept()
    settled = CallState.ACTIVE, CallState.ENDED
    await alice.until(lambda: one.state in settled)
    await bob.until(lambda: two.state in settled)
    assert {one.end, two.end} == {None, CallEnd.GLARE}


async def test_a_ring_that_could_not_go_out_in_its_minute_never_does(tmp_path: Path) -> None:
    clock = Clock()
    async with client_world(tmp_path, now=clock) as world:
        gate = Gate(world)
        alice, bob = await world.talking(transport=gate)
        await gate.shut()
        await alice.client.call("bob")
        queued = await asyncio.to_thread(alice.client.messenger.outbox.entries)
        assert [Envelope.decode(entry.envelope).lane for entry in queued] == [Lane.CONTROL]
        later = max(entry.created_at for entry in queued) + 60_001
        alice.client.messenger._clock = lambda: later
        gate.reopen()
        failed = await alice.event(events.SendFailed)
        assert (failed.recipient, failed.code) == (bob.client.address, "expired")
        await within(alice.client.flushed())
        await alice.client.send("bob", "later")
        assert await bob.read() == ["later"]
        assert bob.events(events.CallRinging) == []


async def test_a_ring_that_the_server_held_back_does_not_ring(world: ClientWorld) -> None:
    alice, bob = await world.talking()
    clock = bob.client.messenger._clock
    bob.client.messenger._clock = lambda: clock() + 7 * 60_000
    await alice.client.call("bob")
    await alice.client.send("bob", "after it")
    assert await bob.read() == ["after it"]
    assert bob.events(events.CallRinging) == []


# --- Lanes: what an invitation overtakes at the relay ---------------------------------------------------------


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[RelayWorld]:
    async with relay_world(tmp_path, PATIENT) as made:
        yield made


async def fill(world: RelayWorld, recipient: Any, sender: Any, count: int) -> None:
    """Store a backlog, without the way there."""

    def name(number: int) -> EnvelopeId:
        return EnvelopeId(b"backlog-" + sender.device_id.raw[:1] + sender.user_id.encode()[:3] + number.to_bytes(4))

    envelopes = [Envelope(name(each), sender, recipient, Lane.CHAT, 3_600, b"chat") for each in range(count)]

    def append(on: Any) -> None:
        batch = [Posted(each, each.encode(), number) for number, each in enumerate(envelopes)]
        for at in range(0, count, 500):
            posting = world.relay.mailbox.posting(on, batch[at : at + 500])
            results = [posting.append(each, lambda: OK, world.clock()) for each in batch[at : at + 500]]
            posting.flush()
            assert all(isinstance(each, Stored) for each in results)

    await world.database.write(append)


async def delivered_at(world: RelayWorld, recipient: Any, invitation: EnvelopeId, total: int) -> int:
    """Connect the recipient; return how many envelopes came before the invitation, when all came."""
    client = FrameClient(world, recipient)
    client.hello(messages=1 << 20)
    await eventually(lambda: len(client.deliveries()) == total)
    ids = [Envelope.decode(each.envelope).envelope_id for each in client.deliveries() if each.envelope is not None]
    assert len(set(ids)) == total
    return ids.index(invitation)


async def test_an_invitation_overtakes_ten_thousand_envelopes_of_other_devices(relay: RelayWorld) -> None:
    bob, alice = await relay.device("bob"), await relay.device("alice")
    for user in ("carol", "david"):
        for device in (1, 2):
            await fill(relay, bob, await relay.device(user, device), 2_500)
    caller = FrameClient(relay, alice)
    await caller.online()
    invitation = caller.post(bob, lane=Lane.CONTROL, ttl=60).envelope_id
    await eventually(lambda: len(caller.frames) == 2)
    receiver = FrameClient(relay, bob)
    receiver.hello(messages=1 << 20)
    first = await receiver.next(Deliver)
    assert first.envelope is not None
    assert Envelope.decode(first.envelope).envelope_id == invitation


async def test_an_invitation_overtakes_exactly_500_envelopes_of_its_own_device(relay: RelayWorld) -> None:
    bob, alice = await relay.device("bob"), await relay.device("alice")
    await fill(relay, bob, alice, 1_200)
    caller = FrameClient(relay, alice)
    await caller.online()
    invitation = caller.post(bob, lane=Lane.CONTROL, ttl=60).envelope_id
    await eventually(lambda: len(caller.frames) == 2)
    assert await delivered_at(relay, bob, invitation, 1_201) == 700
