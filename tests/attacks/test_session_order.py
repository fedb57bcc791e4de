"""Which session a message belongs to, and who decides on which is sent (docs/attacks.md, rows 36 and 37)."""

import pytest

from e2ee.limits import DAY_MS, MAX_SKIP, MAX_TIMESTAMP
from e2ee.messenger import Outcome
from e2ee.session import Clock, start_as_initiator
from e2ee.stores import session_records
from e2ee.wire.envelope import Envelope
from e2ee.wire.message import RatchetMessage
from tests.world import Device, World, talk, unchanged


def people(*names: str) -> list[Device]:
    world = World("order")
    return [world.device(name, one_time_prekeys=False) for name in names]


def numbers(envelope: bytes) -> tuple[int, int]:
    """What the header of a message claims about its place."""
    header = RatchetMessage.decode(Envelope.decode(envelope).body).header
    return header.chain_index, header.pq_index


@pytest.mark.parametrize("newer", [1, 3], ids=["one newer session", "several"])
def test_messages_kept_back_until_a_later_session_used_their_numbers_are_read_and_only_repeats_are_duplicates(
    newer: int,
) -> None:
    alice, bob = people("alice", "bob")
    talk(alice, bob)
    bob.receive(alice.encrypt(bob, "turn"))
    kept_back = [bob.encrypt(alice, f"kept back {number}") for number in range(4)]
    used = set()
    for _ in range(newer):
        alice.world.wait(1)
        alice.start_session(bob)
        for _ in range(5):
            bob.receive(alice.encrypt(bob, "to"))
            envelope = bob.encrypt(alice, "fro")
            used.add(numbers(envelope))
            assert alice.receive(envelope).outcome is Outcome.STORED
        used |= {numbers(each) for each in (bob.encrypt(alice, "one chain") for _ in range(5))}
    assert used & {numbers(each) for each in kept_back}, "the later session has used such numbers"
    alice.read()
    assert [alice.receive(each).outcome for each in reversed(kept_back)] == [Outcome.STORED] * 4
    assert sorted(map(str, alice.read())) == [f"kept back {number}" for number in range(4)]
    for each in kept_back:
        with unchanged(alice):
            assert alice.receive(each).outcome is Outcome.DUPLICATE


def test_a_message_too_far_along_for_a_later_session_is_still_read_by_its_own() -> None:
    alice, bob = people("alice", "bob")
    talk(alice, bob)
    for _ in range(MAX_SKIP + 1):
        alice.receive(bob.encrypt(alice, "many"))
    bob.receive(alice.encrypt(bob, "turn"))
    kept_back = bob.encrypt(alice, "kept back")
    alice.world.wait(1)
    alice.start_session(bob)
    talk(alice, bob)
    bob.receive(alice.encrypt(bob, "turn"))
    alice.read()
    assert alice.receive(kept_back).outcome is Outcome.STORED
    assert alice.read() == ["kept back"]


def claim_a_time(mallory: Device, peer: Device, created: int) -> None:
    """As a hostile client: start a session under a time of one's choice."""
    mallory.meet(peer)
    contact = mallory.messenger.contact(peer.user_id)
    assert contact is not None
    account, world = mallory.messenger.account, mallory.world
    bundle = peer.bundle().verify(contact.device_list, world.now)
    clock = Clock(created, world.now)
    session = start_as_initiator(account.party, account.identity_key_pair, bundle, clock, world.random.randbytes)
    with mallory.store.write() as tx:
        session_records.add_session(tx, session)


@pytest.mark.parametrize("ahead", [DAY_MS, None], ids=["a day ahead", "the end of time"])
def test_a_peer_that_claims_a_time_far_ahead_ends_neither_its_victims_sessions_nor_anybody_elses(
    ahead: int | None,
) -> None:
    mallory, bob, carol = people("mallory", "bob", "carol")
    created = MAX_TIMESTAMP if ahead is None else mallory.world.now + ahead
    claim_a_time(mallory, bob, created)
    assert bob.receive(mallory.encrypt(bob, "from the future")).outcome is Outcome.STORED
    for _ in range(3):
        started = bob.start_session(mallory)
        assert created <= started.origin.created <= MAX_TIMESTAMP
        assert bob.sending_session(mallory).session_id == started.session_id
        assert mallory.receive(bob.encrypt(mallory, "to")).outcome is Outcome.STORED
        assert bob.receive(mallory.encrypt(bob, "fro")).outcome is Outcome.STORED
    assert bob.start_session(carol).origin.created == bob.world.now, "what one peer claims counts with that peer only"
    talk(bob, carol)
