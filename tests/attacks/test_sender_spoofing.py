"""A server that changes who a message is from or for (docs/attacks.md, row 15)."""

import pytest

from e2ee.errors import AuthenticationError, ProtocolError, SessionNotFoundError, WrongRecipientError
from e2ee.messenger import Outcome
from e2ee.ports import Table
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import DeviceAddress, DeviceId, parse_user_id
from tests.world import Device, World, changed, talk, unchanged


def three(*, known: bool) -> tuple[Device, Device, Device]:
    """Return alice, bob and mallory; `known` if both already talk to bob."""
    world = World("spoofing")
    alice, bob, mallory = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob", "mallory"))
    if known:
        talk(alice, bob)
        talk(mallory, bob)
    return alice, bob, mallory


@pytest.mark.parametrize("known", [True, False])
def test_a_message_is_never_shown_as_anothers(known: bool) -> None:
    alice, bob, mallory = three(known=known)
    envelope = mallory.encrypt(bob, "I am alice")
    with unchanged(bob, Table.UNREADABLE):
        reception = bob.receive(changed(envelope, sender=alice.address))
    assert reception.outcome is Outcome.UNREADABLE
    assert isinstance(reception.error, ProtocolError)
    assert bob.messenger.inbound() == []


def test_a_false_device_of_the_same_user_is_refused() -> None:
    alice, bob, _ = three(known=True)
    envelope = alice.encrypt(bob, "hello")
    other = DeviceAddress(alice.user_id, DeviceId(bytes(16)))
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(changed(envelope, sender=other)).error, SessionNotFoundError)


def test_a_first_message_under_another_user_or_device_fails_authentication() -> None:
    alice, bob, _ = three(known=False)
    envelope = alice.encrypt(bob, "hello")
    for sender in (
        DeviceAddress(parse_user_id("alice2"), alice.address.device_id),
        DeviceAddress(alice.user_id, DeviceId(bytes(16))),
    ):
        with unchanged(bob, Table.UNREADABLE):
            assert isinstance(bob.receive(changed(envelope, sender=sender)).error, AuthenticationError)
    assert bob.receive(envelope).outcome is Outcome.STORED


def test_a_repeated_first_message_under_another_sender_does_not_reach_the_session() -> None:
    """H belongs to a session, but only for the device that the session is with."""
    alice, bob, mallory = three(known=False)
    first, second = alice.encrypt(bob, "first"), alice.encrypt(bob, "second")
    bob.receive(first)
    with unchanged(bob, Table.UNREADABLE):
        assert bob.receive(changed(second, sender=mallory.address)).outcome is Outcome.UNREADABLE
    assert bob.receive(second).outcome is Outcome.STORED


def test_a_message_for_another_user_is_refused_even_when_readdressed() -> None:
    alice, bob, mallory = three(known=True)
    talk(alice, mallory)
    envelope = alice.encrypt(bob, "for bob")
    with unchanged(mallory, Table.UNREADABLE):
        assert isinstance(mallory.receive(envelope).error, WrongRecipientError)
        assert isinstance(mallory.receive(changed(envelope, recipient=mallory.address)).error, AuthenticationError)


def test_the_sender_that_the_application_sees_is_the_one_that_the_session_proved() -> None:
    alice, bob, mallory = three(known=True)
    bob.receive(alice.encrypt(bob, "a"))
    bob.receive(mallory.encrypt(bob, "m"))
    assert [message.sender for message in bob.messenger.inbound()] == [alice.address, mallory.address]
    assert Envelope.decode(alice.encrypt(bob, "x")).sender == alice.address
