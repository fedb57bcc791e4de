"""Attacks of one client on the relay: each harms its own connection and nothing else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import given, settings as hypothesis_settings, strategies as st

from e2ee.limits import MAX_ENVELOPE
from e2ee.wire.identifiers import DeviceAddress
from tests.attacks.test_frames_hostile_fields import FIELDS, NAMED, VALUES
from tests.contract.relay_world import PATIENT, FrameClient, RelayWorld, relay_world
from transport_adapters.base import ListClaim, SeqRange
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.fields import MAX_U32
from transport_adapters.frames import CLIENT_EVENTS, Ack, Credit, Deliver, Error, Send, Sent, Welcome
from transport_adapters.server.settings import Rate, RelaySettings


@pytest.fixture
def settings() -> RelaySettings:
    return PATIENT


@pytest.fixture
async def world(tmp_path: Path, settings: RelaySettings) -> AsyncIterator[RelayWorld]:
    async with relay_world(tmp_path, settings) as world:
        yield world


async def online(world: RelayWorld, user: str) -> FrameClient:
    client = FrameClient(world, await world.device(user))
    await client.online()
    return client


async def rows(world: RelayWorld) -> list[Any]:
    """Everything that any mailbox holds."""
    tables = world.relay.tables
    return await world.database.read(
        lambda on: [*on.execute(sqlalchemy.select(tables.envelopes)), *on.execute(sqlalchemy.select(tables.inboxes))]
    )


async def test_oversize_envelope_ends_its_sender_for_good_and_stores_nothing(world: RelayWorld) -> None:
    mallory, bob = await online(world, "mallory"), await online(world, "bob")
    claims = {"seq": 1, "hash": "00" * 32}
    fields = {"counter": 1, "recipient_list": claims, "sender_list": claims, "envelope": bytes(MAX_ENVELOPE + 1)}
    mallory.connection.receive("send", fields)
    assert await mallory.closed() is CloseCode.TOO_LARGE
    assert mallory.errors()[-1].code is ErrorCode.TOO_LARGE
    await bob.answered(bob.owner)
    assert len(await rows(world)) == 3  # bob's to himself, and two inboxes


async def test_truncated_envelopes_are_refused_by_name_and_stored_nowhere(world: RelayWorld) -> None:
    mallory, bob = await online(world, "mallory"), await world.device("bob")
    before = await rows(world)
    outgoing = world.outgoing(mallory.owner, bob)
    for length in (0, 1, 16, 17, 40, len(outgoing.envelope) - 1):
        cut = outgoing.envelope[:length]
        mallory.say(Send(1, outgoing.recipient_list, outgoing.sender_list, cut))
        error = await mallory.next(Error)
        assert error.code is ErrorCode.MALFORMED_FRAME
        assert error.envelope_id == (outgoing.envelope_id if length >= 17 else None)
    assert await rows(world) == before


async def test_spoofed_sender_is_refused_even_for_a_sibling_device(world: RelayWorld) -> None:
    mallory, bob = await online(world, "mallory"), await world.device("bob")
    sibling = await world.device("mallory", 2)
    before = await rows(world)
    for claimed in (bob, sibling):
        outgoing = world.outgoing(claimed, bob)
        mallory.say(Send(1, outgoing.recipient_list, outgoing.sender_list, outgoing.envelope))
        assert (await mallory.next(Error)).code is ErrorCode.WRONG_SENDER
    assert await rows(world) == before


async def test_unlisted_recipients_look_alike_whether_or_not_they_exist(world: RelayWorld) -> None:
    mallory, bob = await online(world, "mallory"), await world.device("bob")
    world.contacts.refused |= {("mallory", "bob"), ("mallory", "nobody")}
    answers = []
    for recipient in (bob, DeviceAddress(type(bob.user_id)("nobody"), bob.device_id)):
        world.lists.newest.setdefault(recipient.user_id, (ListClaim(1, bytes(32)), ()))
        mallory.post(recipient)
        answers.append(replace(await mallory.next(Error), envelope_id=None))
    assert answers[0] == answers[1]
    assert answers[0].code is ErrorCode.CONTACT_REFUSED


@pytest.mark.parametrize(
    ("epoch_off", "ranges"),
    [
        (1, (SeqRange(1, 1),)),
        (-1, (SeqRange(1, 1),)),
        (0, (SeqRange(1, 3),)),
        (0, (SeqRange(1, 1), SeqRange(3, 3))),
        (0, (SeqRange(1, (1 << 63) - 1),)),
    ],
)
async def test_ack_of_another_epoch_or_above_the_head_deletes_nothing(
    world: RelayWorld, epoch_off: int, ranges: tuple[SeqRange, ...]
) -> None:
    alice, bob = await online(world, "alice"), FrameClient(world, await world.device("bob"))
    epoch = (await bob.online()).epoch
    await alice.answered(bob.owner)
    await alice.answered(bob.owner)
    before = await rows(world)
    bob.say(Ack(epoch + epoch_off, ranges))
    assert (await bob.next(Error)).code is ErrorCode.ACK_REFUSED
    assert await rows(world) == before


async def test_ack_reaches_only_the_own_inbox(world: RelayWorld) -> None:
    alice, bob, mallory = await online(world, "alice"), await world.device("bob"), await world.device("mallory")
    await alice.answered(bob)
    await alice.answered(mallory)
    attacker = FrameClient(world, mallory)
    epoch = (await attacker.online()).epoch
    attacker.say(Ack(epoch, (SeqRange(1, 1),)))
    await attacker.answered(mallory)
    receiver = FrameClient(world, bob)
    await receiver.online()
    assert (await receiver.next(Deliver)).seq == 1


async def test_credit_overflow_saturates_and_memory_stays_bounded(world: RelayWorld) -> None:
    alice, bob = await online(world, "alice"), FrameClient(world, await world.device("bob"))
    bob.hello(MAX_U32, MAX_U32)
    await bob.next(Welcome)
    for _ in range(1_000):
        bob.say(Credit(MAX_U32, MAX_U32))
    bob.readable.clear()
    for _ in range(30):
        alice.post(bob.owner, bytes(30_000))
    for _ in range(30):
        await alice.next(Sent)
    await alice.answered(alice.owner)
    assert bob.connection.queued <= 256 * 1024
    bob.readable.set()
    for _ in range(30):
        await bob.next(Deliver)


async def test_a_flood_of_bad_frames_ends_only_its_own_connection(world: RelayWorld) -> None:
    mallory, bob = await online(world, "mallory"), await online(world, "bob")
    for _ in range(100):
        mallory.connection.receive("no such frame", None)
    assert await mallory.closed() is CloseCode.TOO_FAST_OR_SLOW
    assert [error.code for error in mallory.errors()] == [ErrorCode.MALFORMED_FRAME] * 9 + [ErrorCode.FLOODING]
    await bob.answered(bob.owner)


async def test_a_flood_of_sends_without_waiting_for_answers_ends_only_its_own_connection(world: RelayWorld) -> None:
    mallory, bob = await online(world, "mallory"), await online(world, "bob")
    for _ in range(257):
        mallory.post(bob.owner)
    assert await mallory.closed() is CloseCode.TOO_FAST_OR_SLOW
    await bob.answered(bob.owner)


async def test_a_flood_of_large_sends_is_bounded_by_bytes(world: RelayWorld) -> None:
    mallory, bob = await online(world, "mallory"), await online(world, "bob")
    for _ in range(30):
        mallory.post(bob.owner, bytes(90_000))
    assert await mallory.closed() is CloseCode.TOO_FAST_OR_SLOW
    await bob.answered(bob.owner)


async def test_reconnecting_does_not_refill_the_senders_allowance(world: RelayWorld) -> None:
    mallory = await online(world, "mallory")
    bob = await world.device("bob")
    burst = PATIENT.send_rate.burst
    for _ in range(burst // 100):
        for _ in range(100):
            mallory.post(bob)
        for _ in range(100):
            await mallory.next(Sent)
    again = FrameClient(world, mallory.owner, number=2)
    await again.online()
    again.post(bob)
    error = await again.next(Error)
    assert error.code is ErrorCode.RATE_LIMITED
    assert error.retry_after


@pytest.mark.parametrize("settings", [replace(PATIENT, hello_timeout=0.02)])
async def test_slow_loris_without_hello_is_cut_whatever_else_it_sends(world: RelayWorld) -> None:
    mallory = FrameClient(world, await world.device("mallory"))
    for _ in range(5):
        mallory.say(Credit(1, 1))
        await asyncio.sleep(0)
    assert await mallory.closed() is CloseCode.TIMEOUT


async def test_a_replayed_hello_of_an_older_connection_does_not_displace_the_live_one(world: RelayWorld) -> None:
    bob = await world.device("bob")
    live = FrameClient(world, bob, number=5)
    await live.online()
    replayed = FrameClient(world, bob, number=4)
    replayed.hello()
    assert await replayed.closed() is CloseCode.REPLACED
    await live.answered(bob)


def test_nothing_a_client_says_raises_out_of_the_relay(tmp_path: Path) -> None:
    @hypothesis_settings(max_examples=150)
    @given(frames=st.lists(st.tuples(st.sampled_from(CLIENT_EVENTS) | VALUES, FIELDS | NAMED), max_size=12))
    def attacked(frames: list[tuple[Any, Any]]) -> None:
        runner.run(attack(frames))

    async def attack(frames: list[tuple[Any, Any]]) -> None:
        numbers[0] += 1
        mallory = FrameClient(world, attacker, number=numbers[0])
        await mallory.online()
        for event, fields in frames:
            mallory.connection.receive(event, fields)
        await witness.answered(witness.owner)
        assert mallory.connection.closed.is_set() or world.relay.is_live(attacker)

    numbers = [0]
    settings = replace(PATIENT, send_rate=Rate(per_second=1, burst=1 << 30))
    with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
        opened = relay_world(tmp_path, settings)
        world = runner.run(opened.__aenter__())
        stack.callback(lambda: runner.run(opened.__aexit__(None, None, None)))
        attacker = runner.run(world.device("mallory"))
        witness = runner.run(online(world, "bob"))
        attacked()
