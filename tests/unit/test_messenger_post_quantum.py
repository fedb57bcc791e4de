"""Healing on demand and empty contents: the post-quantum ratchet as applications meet it."""

import pytest

from e2ee.errors import DeviceListStaleError
from e2ee.limits import DAY_MS, PQ_ANSWER_MS, PQ_STALLED_RECEIVED, PQ_STALLED_SENT
from e2ee.messenger import Outcome
from e2ee.notices import EpochStalled, Notice
from e2ee.ports import Table
from e2ee.wire.envelope import Envelope
from e2ee.wire.message import PqPayloadType, PreKeyMessage, decode_body
from tests.world import Device, World, talk


def established(seed: str = "post-quantum") -> tuple[Device, Device]:
    world = World(seed)
    alice, bob = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    talk(alice, bob)
    return alice, bob


def epochs(*devices: Device) -> list[int]:
    one, other = devices
    return [one.sending_session(other).ratchets.pq.epoch, other.sending_session(one).ratchets.pq.epoch]


def payload_type(envelope: bytes) -> int:
    body = decode_body(Envelope.decode(envelope).body)
    return (body.message if isinstance(body, PreKeyMessage) else body).header.pq_type


def pass_time(alice: Device, bob: Device, rounds: int = 12) -> int:
    """Let the devices do what they do by themselves; return how many envelopes they sent."""
    sent = 0
    for _ in range(rounds):
        for device in (alice, bob):
            sent += device.tend().queued
            device.post()
            alice.world.deliver()
        alice.world.wait(PQ_ANSWER_MS)
    return sent


@pytest.mark.parametrize("said_before", range(8))
@pytest.mark.parametrize("asking", [0, 1])
def test_healing_completes_by_itself_whatever_was_under_way_at_the_call(said_before: int, asking: int) -> None:
    ends = established()
    for number in range(said_before):
        ends[0].world.wait(DAY_MS)
        sender, recipient = ends[number % 2], ends[1 - number % 2]
        recipient.receive(sender.encrypt(recipient, "before the leak"))
    device, peer = ends[asking], ends[1 - asking]
    device.messenger.heal_now(peer.user_id)
    pass_time(*ends)
    assert not device.sending_session(peer).ratchets.pq.turn.healing
    assert pass_time(*ends) == 0, "it comes to an end"


@pytest.mark.parametrize("asking", ["initiator", "responder", "both"])
def test_healing_completes_without_anything_being_said(asking: str) -> None:
    alice, bob = established()
    for device, peer, name in ((alice, bob, "initiator"), (bob, alice, "responder")):
        if asking in (name, "both"):
            assert len(device.messenger.heal_now(peer.user_id).entries) == 1
            device.post()
    alice.world.deliver()
    assert pass_time(alice, bob) < 8, "it comes to an end"
    assert epochs(alice, bob) == [2, 2]
    for device, peer in ((alice, bob), (bob, alice)):
        assert not device.sending_session(peer).ratchets.pq.turn.healing
        assert device.read() == []
        assert device.tend().again_in is None
        assert device.snapshot()[Table.OWED_ANSWERS] == ()


def test_healing_before_first_contact_says_what_lacks() -> None:
    world = World("nobody")
    alice, bob = world.device("alice"), world.device("bob")
    with pytest.raises(DeviceListStaleError):
        alice.messenger.heal_now(bob.user_id)


def proposed() -> tuple[Device, Device]:
    """Return devices of which alice's message, with a proposal, has just reached bob."""
    alice, bob = established()
    alice.world.wait(DAY_MS)
    envelope = alice.encrypt(bob, "a day later")
    assert payload_type(envelope) == PqPayloadType.ENCAPSULATION_KEY
    assert bob.receive(envelope).tend
    return alice, bob


def test_a_payload_is_answered_by_an_empty_content_after_5_seconds_and_not_before() -> None:
    alice, bob = proposed()
    alice.world.wait(PQ_ANSWER_MS - 1)
    tended = bob.tend()
    assert (tended.queued, tended.again_in) == (0, 1)
    alice.world.wait(1)
    assert bob.tend().queued == 1
    (envelope,) = bob.world.network.in_flight
    assert payload_type(envelope) == PqPayloadType.CIPHERTEXT
    assert alice.receive(envelope).outcome is Outcome.CONSUMED
    assert bob.tend().queued == 0, "once"


def test_whatever_is_sent_meanwhile_is_the_answer() -> None:
    alice, bob = proposed()
    alice.receive(bob.encrypt(alice, "well"))
    alice.world.wait(PQ_ANSWER_MS)
    tended = bob.tend()
    assert (tended.queued, tended.again_in) == (0, None)


def test_the_5_seconds_run_from_the_first_payload_and_survive_a_restart() -> None:
    alice, bob = proposed()
    envelope = [alice.encrypt(bob, "more") for _ in range(7)][-1]
    alice.world.wait(PQ_ANSWER_MS - 1)
    assert payload_type(envelope) == PqPayloadType.ENCAPSULATION_KEY
    bob.receive(envelope)
    bob.restart()
    alice.world.wait(1)
    assert bob.tend().queued == 1


def test_nothing_is_answered_on_a_session_that_another_one_has_replaced() -> None:
    alice, bob = proposed()
    alice.world.wait(1)
    alice.start_session(bob)
    bob.receive(alice.encrypt(bob, "anew"))
    alice.world.wait(PQ_ANSWER_MS)
    assert bob.tend().queued == 0
    assert bob.snapshot()[Table.OWED_ANSWERS] == ()


def test_a_clock_that_was_set_back_does_not_delay_the_answer() -> None:
    alice, bob = proposed()
    alice.world.wait(-DAY_MS)
    assert bob.tend().queued == 1


def test_somebody_who_drops_payloads_is_reported_once() -> None:
    alice, bob = established()
    alice.world.wait(DAY_MS)
    notices: list[Notice] = []
    for number in range(PQ_STALLED_RECEIVED + 50):
        if number < PQ_STALLED_SENT:
            envelope = alice.encrypt(bob, "to bob")
            if payload_type(envelope) == PqPayloadType.NONE:
                bob.receive(envelope)
        notices += alice.receive(bob.encrypt(alice, "to alice")).notices
    assert notices == [EpochStalled(bob.address)]


def test_closed_epochs_go_after_7_days_of_upkeep() -> None:
    alice, bob = established()
    for _ in range(3):
        alice.world.wait(DAY_MS)
        for sender, recipient in ((alice, bob), (bob, alice), (alice, bob)):
            recipient.receive(sender.encrypt(recipient, "daily"))
    assert len(bob.sending_session(alice).ratchets.pq.closed) >= 2
    alice.world.wait(8 * DAY_MS)
    bob.messenger.prune()
    assert bob.sending_session(alice).ratchets.pq.closed == ()
    assert alice.receive(bob.encrypt(alice, "still")).outcome is Outcome.STORED
