"""A server that adds a device, or moves a message to one (docs/attacks.md, row 12)."""

from dataclasses import replace

import pytest

from e2ee.errors import InvalidSignatureError, UnlistedDeviceError
from e2ee.messenger import Outcome
from e2ee.ports import Table
from e2ee.wire.device_list import SignedDeviceList, ordered
from e2ee.wire.envelope import Envelope
from tests.world import Device, World, changed, talk, unchanged


def world_with_ghost() -> tuple[Device, Device, Device]:
    """Return alice, bob and a device that claims to be bob's and is not in bob's list."""
    world = World("silent device")
    alice, bob = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    return alice, bob, world.device("bob", one_time_prekeys=False, listed=False)


def test_a_bundle_of_an_unlisted_device_is_refused_and_nothing_is_encrypted_to_it() -> None:
    alice, bob, ghost = world_with_ghost()
    talk(alice, bob)
    with unchanged(alice), pytest.raises(UnlistedDeviceError):
        alice.messenger.start_session(ghost.bundle())
    queued = alice.messenger.send(bob.user_id, "hello")
    assert [entry.recipient for entry in queued.entries] == [bob.address]


def test_an_unlisted_device_under_a_listed_id_is_refused() -> None:
    alice, bob, ghost = world_with_ghost()
    alice.messenger.learn_device_lists(bob.user_id, [bob.messenger.own_device_list().signed])
    disguised = replace(ghost.bundle(), address=bob.address)
    with unchanged(alice), pytest.raises(InvalidSignatureError):
        alice.messenger.start_session(disguised)


def test_a_list_to_which_the_server_added_a_device_is_refused() -> None:
    alice, bob, ghost = world_with_ghost()
    talk(alice, bob)
    own = bob.messenger.own_device_list()
    both = ordered([*own.content.devices, *ghost.messenger.own_device_list().content.devices])
    content = replace(own.content, seq=2, previous_hash=own.content.hash(), devices=both)
    with unchanged(alice), pytest.raises(InvalidSignatureError):
        alice.messenger.learn_device_lists(bob.user_id, [SignedDeviceList(content, own.signed.signature)])


def test_a_message_from_an_unlisted_device_is_not_shown_as_the_users() -> None:
    alice, bob, ghost = world_with_ghost()
    talk(alice, bob)
    envelope = ghost.encrypt(alice, "I am bob")
    with unchanged(alice, Table.PENDING_TRUST):
        assert alice.receive(envelope).outcome is Outcome.WAITING_FOR_TRUST
    assert alice.messenger.inbound() == []


def test_a_device_without_a_session_is_named_and_not_silently_skipped() -> None:
    alice, bob, other = world_with_ghost()
    talk(alice, bob)
    own = bob.messenger.own_device_list()
    both = ordered([*own.content.devices, *other.messenger.own_device_list().content.devices])
    content = replace(own.content, seq=2, previous_hash=own.content.hash(), devices=both)
    alice.messenger.learn_device_lists(bob.user_id, [bob.messenger.account.sign_device_list(content).signed])
    assert alice.messenger.missing_sessions(bob.user_id) == (other.address,)
    queued = alice.messenger.send(bob.user_id, "hello")
    assert [entry.recipient for entry in queued.entries] == [bob.address]
    assert queued.without_session == (other.address,)


def test_a_message_moved_to_another_device_is_unreadable_there() -> None:
    alice, bob, ghost = world_with_ghost()
    talk(alice, bob)
    envelope = alice.encrypt(bob, "for bob alone")
    with unchanged(ghost, Table.UNREADABLE):
        assert ghost.receive(envelope).outcome is Outcome.UNREADABLE
        assert ghost.receive(changed(envelope, recipient=ghost.address)).outcome is Outcome.UNREADABLE
    assert Envelope.decode(envelope).recipient == bob.address
