"""The relay's treatment of one connection, spoken to in frames."""

from dataclasses import replace
from typing import TypeVar

import pytest
import sqlalchemy

from e2ee.wire.identifiers import DeviceAddress, UserId
from tests.contract.relay_world import PATIENT, FrameClient, RelayWorld, eventually
from transport_adapters.base import PresenceState, SeqRange
from transport_adapters.codes import CloseCode, ErrorCode
from transport_adapters.frames import Ack, Credit, Deliver, Error, Presence, Sent, Welcome
from transport_adapters.server.bus import LocalBus

T = TypeVar("T")


async def store(world: RelayWorld, sender: DeviceAddress, recipient: DeviceAddress, *bodies: bytes) -> None:
    """Put envelopes into a mailbox."""
    client = FrameClient(world, sender)
    await client.online()
    for body in bodies:
        client.post(recipient, body)
    for _ in bodies:
        await client.next(Sent)
    client.connection.disconnected()


# --- hello -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [replace(PATIENT, hello_timeout=0.01)])
async def test_a_connection_that_never_says_hello_is_ended(world: RelayWorld, bob: DeviceAddress) -> None:
    client = FrameClient(world, bob)
    assert await client.closed() is CloseCode.TIMEOUT
    assert [error.code for error in client.errors()] == [ErrorCode.HELLO_TIMEOUT]


async def test_frames_before_hello_are_refused(world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress) -> None:
    client = FrameClient(world, bob)
    client.post(alice)
    assert (await client.next(Error)).code is ErrorCode.HELLO_REQUIRED
    await client.online()


async def test_frames_right_behind_hello_wait_for_it(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    client = FrameClient(world, bob)
    client.hello()
    client.post(alice)
    await client.next(Welcome)
    await client.next(Sent)


async def test_a_second_hello_is_a_bad_frame(world: RelayWorld, bob: DeviceAddress) -> None:
    client = FrameClient(world, bob)
    await client.online()
    client.hello()
    assert (await client.next(Error)).code is ErrorCode.MALFORMED_FRAME


@pytest.mark.parametrize(
    ("code", "close_code"),
    [("token_invalid", CloseCode.TOKEN_EXPIRED), ("device_revoked", CloseCode.REVOKED)],
)
async def test_a_refused_token_ends_the_connection(
    world: RelayWorld, bob: DeviceAddress, code: str, close_code: CloseCode
) -> None:
    world.tokens.refused[bob] = code
    client = FrameClient(world, bob)
    client.hello()
    assert await client.closed() is close_code
    assert (client.errors()[-1].code, client.errors()[-1].close_code) == (code, close_code)


async def test_a_device_without_an_inbox_is_told_to_log_in_again(world: RelayWorld) -> None:
    client = FrameClient(world, DeviceAddress(UserId("nobody"), (await world.device("bob")).device_id))
    client.hello()
    assert await client.closed() is CloseCode.TOKEN_EXPIRED


# --- one live connection per device ----------------------------------------------------------------------------


async def test_a_higher_number_of_the_same_program_takes_over(world: RelayWorld, bob: DeviceAddress) -> None:
    old, new = FrameClient(world, bob, number=1), FrameClient(world, bob, number=2)
    await old.online()
    await new.online()
    assert await old.closed() is CloseCode.REPLACED
    assert world.relay.is_live(bob)
    assert new.closed_with is None


@pytest.mark.parametrize("number", [1, 2])
async def test_a_number_not_higher_is_refused(world: RelayWorld, bob: DeviceAddress, number: int) -> None:
    new, late = FrameClient(world, bob, number=2), FrameClient(world, bob, number=number)
    await new.online()
    late.hello()
    assert await late.closed() is CloseCode.REPLACED
    assert new.closed_with is None
    await new.answered(bob)


async def test_another_program_takes_over_whatever_its_number(world: RelayWorld, bob: DeviceAddress) -> None:
    old, new = FrameClient(world, bob, number=9), FrameClient(world, bob, number=1, instance=2)
    await old.online()
    await new.online()
    assert await old.closed() is CloseCode.REPLACED


async def test_the_end_of_a_displaced_connection_leaves_the_new_one_live(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    old, new = FrameClient(world, bob, number=1), FrameClient(world, bob, number=2)
    await old.online()
    await new.online()
    await old.closed()
    old.connection.disconnected()
    await store(world, alice, bob, b"ciphertext")
    await new.next(Deliver)


# --- delivery ------------------------------------------------------------------------------------------------


async def test_nothing_is_delivered_beyond_the_credit_in_messages(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    await store(world, alice, bob, *[b"ciphertext"] * 5)
    client = FrameClient(world, bob)
    client.hello(messages=0)
    await client.answered(bob)
    assert client.deliveries() == []
    client.say(Credit(2, 0))
    await client.next(Deliver)
    await client.next(Deliver)
    await client.answered(bob)
    assert [each.seq for each in client.deliveries()] == [1, 2]


async def test_nothing_is_delivered_beyond_the_credit_in_bytes(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    await store(world, alice, bob, bytes(1_000), bytes(1_000), b"")
    client = FrameClient(world, bob)
    client.hello(size=1_500)
    assert (await client.next(Deliver)).seq == 1
    await client.answered(bob)
    assert [each.seq for each in client.deliveries()] == [1]
    client.say(Credit(0, 1_000))
    assert (await client.next(Deliver)).seq == 2


async def test_a_client_that_does_not_read_costs_little_memory(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    await store(world, alice, bob, *[bytes(20_000)] * 100)
    client = FrameClient(world, bob)
    await client.online()
    await client.next(Deliver)
    client.readable.clear()
    other = FrameClient(world, alice, number=2)
    await other.online()
    for _ in range(20):  # time enough to read the mailbox to its end
        await other.answered(alice)
        assert client.connection.queued <= 256 * 1024
    await eventually(lambda: client.connection.queued > 0)


@pytest.mark.parametrize("settings", [replace(PATIENT, send_timeout=0.05, close_timeout=0.05)])
async def test_a_client_that_does_not_read_is_ended_as_slow_and_loses_nothing(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    client = FrameClient(world, bob)
    await client.online()
    client.readable.clear()
    await store(world, alice, bob, *[b"ciphertext"] * 3)
    assert await client.closed() is CloseCode.TOO_FAST_OR_SLOW
    again = FrameClient(world, bob, number=2)
    await again.online()
    assert [(await again.next(Deliver)).seq for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("settings", [replace(PATIENT, max_queued=36 * 1024, close_timeout=0.05)])
async def test_answers_that_nobody_reads_end_the_connection(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    client = FrameClient(world, bob)
    await client.online()
    client.readable.clear()
    for _ in range(40):
        client.post(alice)
    assert await client.closed() is CloseCode.TOO_FAST_OR_SLOW


class DeafBus(LocalBus):  # type: ignore[misc]  # final in the product
    """Loses every hint."""

    def publish(self, _address: DeviceAddress) -> None:
        pass


@pytest.mark.parametrize("settings", [replace(PATIENT, reread_interval=0.02)])
async def test_a_lost_hint_costs_time_and_no_message(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.relay, "bus", DeafBus())
    client = FrameClient(world, bob)
    await client.online()
    await store(world, alice, bob, b"ciphertext")
    await client.next(Deliver)


async def test_a_bodiless_row_names_its_sender_and_envelope(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    sender = FrameClient(world, alice)
    await sender.online()
    outgoing = sender.post(bob, ttl=5)
    await sender.next(Sent)
    world.clock.advance(5)
    await world.relay.tidy()
    client = FrameClient(world, bob)
    welcome = await client.online()
    expected = Deliver(welcome.epoch, 1, sender=alice, envelope_id=outgoing.envelope_id, dropped="ttl")
    assert await client.next(Deliver) == expected


@pytest.mark.parametrize("settings", [replace(PATIENT, housekeeping_interval=0.01)])
async def test_housekeeping_expires_what_is_due(world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress) -> None:
    await store(world, alice, bob, b"ciphertext")
    world.clock.advance(3600)
    await world.relay.start()
    await world.relay.start()
    bytes_held = sqlalchemy.select(world.relay.tables.inboxes.c.bytes).where(
        world.relay.tables.inboxes.c.user_id == "bob"
    )

    async def is_empty() -> bool:
        return await world.database.read(lambda on: on.scalar(bytes_held)) == 0

    await eventually(is_empty)


async def test_presence_is_accepted(world: RelayWorld, bob: DeviceAddress) -> None:
    client = FrameClient(world, bob)
    await client.online()
    client.say(Presence(PresenceState.AWAY))
    await client.answered(bob)
    assert client.errors() == []


# --- going down --------------------------------------------------------------------------------------------------


async def test_a_closing_relay_tells_everybody_and_takes_nobody(world: RelayWorld, bob: DeviceAddress) -> None:
    client, silent = FrameClient(world, bob), FrameClient(world, bob)
    await client.online()
    await world.relay.close()
    assert (client.closed_with, silent.closed_with) == (CloseCode.DRAINING, CloseCode.DRAINING)
    late = FrameClient(world, bob)
    assert await late.closed() is CloseCode.DRAINING
    await world.relay.close()


async def test_answers_go_out_before_the_last_frame(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    client = FrameClient(world, alice)
    await client.online()
    client.readable.clear()
    client.post(bob)
    client.post(bob)
    await eventually(lambda: client.connection.queued >= 512)  # the transport holds one answer up, another waits
    world.relay.cut(alice)
    client.readable.set()
    await client.closed()
    assert [type(frame) for frame in client.frames[-3:]] == [Sent, Sent, Error]


async def test_of_several_acks_at_once_each_is_judged_by_itself(
    world: RelayWorld, alice: DeviceAddress, bob: DeviceAddress
) -> None:
    client = FrameClient(world, bob)
    welcome = await client.online()
    client.post(bob)
    await client.next(Sent)
    client.say(Ack(welcome.epoch, (SeqRange(1, 2),)))
    client.say(Ack(welcome.epoch, (SeqRange(1, 1),)))
    client.say(Ack(welcome.epoch + 1, (SeqRange(1, 1),)))
    for _ in range(2):
        assert (await client.next(Error)).code is ErrorCode.ACK_REFUSED
    again = FrameClient(world, bob, number=2)
    assert (await again.online()).acked_seq == 1
