"""Skipped keys in the store: what they cost, when they die, and that a loss has a name."""

import pytest

from e2ee.errors import DuplicateMessageError, E2EEError, KeyEvictedError
from e2ee.limits import (
    LATE_ENVELOPE_MS,
    MAX_EVICTED_MARKS,
    MAX_SKIPPED_KEYS,
    SKIPPED_KEY_LIFETIME_MS,
    SKIPPED_KEY_RECEIVES,
)
from e2ee.messenger import Outcome, Reception
from e2ee.ports import Table
from e2ee.ratchet.skipped_keys import Evicted, Ratchet, SkippedKey, SkippedPosition
from e2ee.session import Session
from e2ee.stores import session_records
from tests.world import Device, World, talk, unchanged

CHAIN = bytes(32)


def established() -> tuple[Device, Device]:
    world = World("skipped keys")
    alice, bob = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    talk(alice, bob)
    return alice, bob


def refused(reception: Reception, error: type[E2EEError]) -> None:
    assert reception.outcome is Outcome.UNREADABLE
    assert type(reception.error) is error


def keys(count: int, first: int = 0, ratchet: Ratchet = Ratchet.DOUBLE) -> list[SkippedKey]:
    positions = (SkippedPosition(ratchet, CHAIN, index) for index in range(first, first + count))
    return [SkippedKey(position, b"k" * 32) for position in positions]


def test_a_skipped_message_arrives_late_and_its_keys_go() -> None:
    alice, bob = established()
    late = alice.encrypt(bob, "late")
    bob.receive(alice.encrypt(bob, "next"))
    assert bob.messenger.status().skipped_keys == 2
    assert bob.receive(late).outcome is Outcome.STORED
    assert bob.messenger.status().skipped_keys == 0


def test_a_forged_late_message_leaves_its_key_in_place() -> None:
    alice, bob = established()
    late = alice.encrypt(bob, "late")
    bob.receive(alice.encrypt(bob, "next"))
    with unchanged(bob, Table.UNREADABLE):
        assert bob.receive(late[:-1] + bytes([late[-1] ^ 1])).outcome is Outcome.UNREADABLE
    assert bob.receive(late).outcome is Outcome.STORED


def test_skipped_keys_die_of_age_in_prune_and_not_before_the_inbox_was_drained() -> None:
    alice, bob = established()
    late = [alice.encrypt(bob, f"late {number}") for number in range(3)]
    bob.receive(alice.encrypt(bob, "next"))
    bob.world.wait(SKIPPED_KEY_LIFETIME_MS)
    bob.messenger.prune()
    assert bob.receive(late[0]).outcome is Outcome.STORED
    bob.world.wait(1)
    # Coming online after a week: further skipping must not take the keys of messages that wait in the inbox.
    alice.encrypt(bob, "lost")
    bob.receive(alice.encrypt(bob, "first after a week"))
    assert bob.receive(late[1]).outcome is Outcome.STORED
    bob.messenger.prune()
    with unchanged(bob, Table.UNREADABLE):
        refused(bob.receive(late[2]), KeyEvictedError)


def test_an_evicted_key_is_told_from_a_duplicate() -> None:
    alice, bob = established()
    late = alice.encrypt(bob, "late")
    delivered = alice.encrypt(bob, "next")
    bob.receive(delivered)
    bob.world.wait(LATE_ENVELOPE_MS + 1)
    bob.messenger.prune()
    refused(bob.receive(late), KeyEvictedError)
    # Its body hash is pruned as well by now, so it is the ratchet that knows.
    reception = bob.receive(delivered)
    assert reception.outcome is Outcome.DUPLICATE
    assert isinstance(reception.error, DuplicateMessageError)


def test_skipped_keys_beyond_the_number_are_evicted_oldest_first() -> None:
    alice, bob = established()
    session = bob.sending_session(alice)
    with bob.store.write() as tx:
        session_records.add_skipped(tx, session, keys(MAX_SKIPPED_KEYS), bob.world.now)
        find = session_records.skipped_lookup(tx, session)
        assert find(keys(1)[0].position) == b"k" * 32
        session_records.add_skipped(tx, session, keys(3, first=MAX_SKIPPED_KEYS), bob.world.now)
        found = [find(each.position) for each in keys(MAX_SKIPPED_KEYS + 3)]
    assert found[:3] == [Evicted.EVICTED] * 3
    assert set(found[3:]) == {b"k" * 32}


def test_the_two_maps_are_bounded_apart() -> None:
    alice, bob = established()
    session = bob.sending_session(alice)
    with bob.store.write() as tx:
        for ratchet in Ratchet:
            session_records.add_skipped(tx, session, keys(MAX_SKIPPED_KEYS, ratchet=ratchet), bob.world.now)
        find = session_records.skipped_lookup(tx, session)
        assert {find(keys(1, ratchet=ratchet)[0].position) for ratchet in Ratchet} == {b"k" * 32}


def aged(session: Session, further: int) -> Session:
    """Return a session that has received so many more messages."""
    return session._replace(state=session.ratchets._replace(receives=session.receives + further))


def test_skipped_keys_die_after_2000_further_receives() -> None:
    alice, bob = established()
    late = [alice.encrypt(bob, f"late {number}") for number in range(2)]
    bob.receive(alice.encrypt(bob, "next"))
    session = bob.sending_session(alice)

    def receives(further: int) -> None:
        with bob.store.write() as tx:
            session_records.save_session(tx, aged(session, further))

    receives(SKIPPED_KEY_RECEIVES)
    bob.messenger.prune()
    assert bob.receive(late[0]).outcome is Outcome.STORED
    receives(SKIPPED_KEY_RECEIVES + 1)
    bob.messenger.prune()
    refused(bob.receive(late[1]), KeyEvictedError)


def test_the_marks_of_evicted_keys_are_bounded_too() -> None:
    alice, bob = established()
    session = bob.sending_session(alice)
    rounds = 4
    with bob.store.write() as tx:
        for number in range(rounds):
            batch = keys(MAX_SKIPPED_KEYS, first=number * MAX_SKIPPED_KEYS)
            session_records.add_skipped(tx, session, batch, bob.world.now)
        assert tx.count(Table.SKIPPED_KEYS) == MAX_SKIPPED_KEYS + MAX_EVICTED_MARKS
        assert session_records.skipped_lookup(tx, session)(keys(1)[0].position) is None


def test_deleting_a_session_deletes_its_keys_and_marks_and_no_others() -> None:
    alice, bob = established()
    carol = alice.world.device("carol", one_time_prekeys=False)
    talk(carol, bob)
    with bob.store.write() as tx:
        for peer in (alice, carol):
            session = session_records.sessions_with(tx, peer.address)[0]
            session_records.add_skipped(tx, session, keys(MAX_SKIPPED_KEYS + 5), bob.world.now)
        session_records.delete_session(tx, session_records.sessions_with(tx, alice.address)[0])
        assert tx.count(Table.SKIPPED_KEYS) == MAX_SKIPPED_KEYS + 5
        assert session_records.sessions_with(tx, alice.address) == []


@pytest.mark.parametrize("count", [0, 1, 3])
def test_sessions_come_highest_first(count: int) -> None:
    alice, bob = established()
    for _ in range(count):
        alice.start_session(bob)
    order = [session.precedence for session in alice.sessions(bob)]
    assert order == sorted(order, reverse=True)
    assert len(order) == count + 1
