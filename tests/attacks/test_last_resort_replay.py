"""Replaying first messages that used no one-time key (docs/attacks.md, row 19)."""

import pytest

from e2ee.errors import ReplayedHandshakeError, UnknownPreKeyError
from e2ee.limits import LATE_ENVELOPE_MS, MAX_SESSIONS_PER_DEVICE, PREKEY_ROTATION_MS
from e2ee.messenger import Outcome
from e2ee.ports import Table
from e2ee.stores import session_records
from tests.world import Device, World, unchanged


def pair() -> tuple[Device, Device]:
    world = World("last resort")
    return world.device("alice", one_time_prekeys=False), world.device("bob", one_time_prekeys=False)


def test_a_replayed_first_message_is_refused_after_its_session_was_pushed_out() -> None:
    alice, bob = pair()
    first, unread = alice.encrypt(bob, "first"), alice.encrypt(bob, "held back by the server")
    bob.receive(first)
    for number in range(MAX_SESSIONS_PER_DEVICE):
        alice.world.wait(1)
        alice.start_session(bob)
        bob.receive(alice.encrypt(bob, str(number)))
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(unread).error, ReplayedHandshakeError)
        assert bob.receive(first).outcome is Outcome.DUPLICATE


def test_a_replay_is_refused_for_as_long_as_its_key_lives() -> None:
    alice, bob = pair()
    first, unread = alice.encrypt(bob, "first"), alice.encrypt(bob, "held back by the server")
    bob.receive(first)
    bob.forget_sessions(alice)
    for _ in range(7):
        bob.world.wait(PREKEY_ROTATION_MS)
        bob.publish()
        bob.messenger.prune()
        with unchanged(bob, Table.UNREADABLE):
            assert bob.receive(unread).outcome is Outcome.UNREADABLE
    bob.world.wait(LATE_ENVELOPE_MS)
    bob.messenger.prune()
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(first).error, UnknownPreKeyError)


def test_a_key_whose_memory_is_full_refuses_new_handshakes_and_evicts_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_records, "MAX_REPLAY_ENTRIES", 2)
    alice, bob = pair()
    others = [alice.world.device(name, one_time_prekeys=False) for name in ("carol", "dave")]
    for sender in others:
        assert bob.receive(sender.encrypt(bob, "hello")).outcome is Outcome.STORED
    late = alice.encrypt(bob, "too many")
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(late).error, UnknownPreKeyError)
    assert len(bob.snapshot()[Table.REPLAYS]) == 2
    # A fresh key serves at the next publication.
    bob.world.wait(1)
    bob.publish()
    alice.start_session(bob)
    assert bob.receive(alice.encrypt(bob, "again")).outcome is Outcome.STORED
