"""A store that was rolled back or cloned (docs/attacks.md, row 29). What the relay can tell about it comes later."""

import pytest

from e2ee.errors import AuthenticationError, DuplicateMessageError
from e2ee.messenger import Outcome
from e2ee.ports import Table
from e2ee.wire.envelope import Envelope
from e2ee.wire.message import RatchetMessage
from tests.world import Device, World, talk, unchanged


def established(seed: str = "rollback") -> tuple[Device, Device]:
    world = World(seed)
    alice, bob = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    talk(alice, bob)
    return alice, bob


def test_a_rolled_back_sender_repeats_a_message_key_but_never_a_nonce() -> None:
    alice, bob = established()
    alice.encrypt(bob, "so that the ratchet key exists already")
    old = alice.snapshot()
    first = RatchetMessage.decode(Envelope.decode(alice.encrypt(bob, "one")).body)
    alice.restore(old)
    second = RatchetMessage.decode(Envelope.decode(alice.encrypt(bob, "two")).body)
    assert first.commitment == second.commitment, "the same key, which a rollback cannot avoid"
    assert first.nonce != second.nonce


def test_the_receiver_of_a_rolled_back_sender_takes_no_index_twice() -> None:
    alice, bob = established()
    bob.receive(alice.encrypt(bob, "so that the ratchet key exists already"))
    old = alice.snapshot()
    bob.receive(alice.encrypt(bob, "read"))
    alice.restore(old)
    with unchanged(bob):
        assert bob.receive(alice.encrypt(bob, "on the same index")).outcome is Outcome.DUPLICATE


def test_a_sender_that_was_rolled_back_behind_its_last_ratchet_turn_is_not_believed() -> None:
    alice, bob = established()
    old = alice.snapshot()
    bob.receive(alice.encrypt(bob, "turned"))
    alice.restore(old)
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(alice.encrypt(bob, "turned again")).error, AuthenticationError)


def test_a_rolled_back_receiver_reads_what_comes_again_and_nothing_twice_afterwards() -> None:
    alice, bob = established()
    envelopes = [alice.encrypt(bob, str(number)) for number in range(3)]
    old = bob.snapshot()
    for envelope in envelopes:
        bob.receive(envelope)
    bob.restore(old)
    assert [bob.receive(envelope).outcome for envelope in envelopes] == [Outcome.STORED] * 3
    for envelope in envelopes:
        with unchanged(bob):
            assert isinstance(bob.receive(envelope).error, DuplicateMessageError)


@pytest.mark.parametrize("seed", range(8))
def test_random_send_receive_drop_archive_and_restore_converge_afterwards(seed: int) -> None:
    alice, bob = established(f"storm {seed}")
    world, random = alice.world, alice.world.random
    saved = {device: device.snapshot() for device in (alice, bob)}
    for number in range(40):
        device, peer = random.sample([alice, bob], 2)
        match random.choice(["send", "send", "deliver", "drop", "new session", "save", "restore"]):
            case "send":
                device.send(peer, str(number))
            case "deliver":
                world.deliver()
            case "drop":
                world.network.in_flight.clear()
            case "new session":
                world.wait(1)
                device.start_session(peer)
            case "save":
                saved[device] = device.snapshot()
            case _:
                device.restore(saved[device])
    world.network.in_flight.clear()
    # Until the relay tells a device of its rollback, the person starts over; both ends then agree again.
    world.wait(1)
    alice.start_session(bob)
    newest = max(alice.sessions(bob)[0].origin.created, *(each.origin.created for each in bob.sessions(alice)))
    while alice.sending_session(bob).origin.created <= newest - 1:
        alice.start_session(bob)
    alice.read(), bob.read()
    for sender, recipient in ((alice, bob), (bob, alice), (alice, bob), (bob, alice)):
        assert recipient.receive(sender.encrypt(recipient, "after the storm")).outcome is Outcome.STORED
        assert recipient.read() == ["after the storm"]
    assert alice.sending_session(bob).session_id == bob.sending_session(alice).session_id
