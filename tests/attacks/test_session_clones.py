"""Reviving old sessions, and piling up new ones (docs/attacks.md, row 24)."""

from e2ee.limits import MAX_SESSIONS_PER_DEVICE
from e2ee.messenger import Outcome
from tests.world import Device, World, talk


def established() -> tuple[Device, Device]:
    world = World("clones")
    alice, bob = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    talk(alice, bob)
    return alice, bob


def test_a_leaked_old_session_never_becomes_the_sending_one_by_receiving_on_it() -> None:
    alice, bob = established()
    leaked = alice.snapshot()
    alice.world.wait(1)
    alice.start_session(bob)
    bob.receive(alice.encrypt(bob, "healed"))
    alice.receive(bob.encrypt(alice, "healed"))
    healed = bob.sending_session(alice).session_id
    present = alice.snapshot()
    alice.restore(leaked)  # the thief, with everything that alice had
    stolen = [alice.encrypt(bob, f"from the thief {number}") for number in range(5)]
    alice.restore(present)
    for envelope in stolen:
        assert bob.receive(envelope).outcome is Outcome.STORED
        assert bob.sending_session(alice).session_id == healed
    answer = bob.encrypt(alice, "not for the thief")
    assert alice.receive(answer).outcome is Outcome.STORED
    alice.restore(leaked)
    assert alice.receive(answer).outcome is Outcome.UNREADABLE


def test_sessions_with_one_device_are_capped_and_the_sending_one_survives_a_flood_of_older_ones() -> None:
    alice, bob = established()
    present = alice.snapshot()
    alice.world.wait(1_000_000)
    alice.start_session(bob)
    bob.receive(alice.encrypt(bob, "the newest"))
    newest = bob.sending_session(alice).session_id
    alice.restore(present)
    alice.world.wait(-1_000_000)
    for number in range(2 * MAX_SESSIONS_PER_DEVICE):
        alice.start_session(bob)
        bob.receive(alice.encrypt(bob, str(number)))
    assert len(bob.sessions(alice)) == MAX_SESSIONS_PER_DEVICE
    assert bob.sending_session(alice).session_id == newest


def test_a_new_session_needs_the_same_pinned_account_key() -> None:
    alice, bob = established()
    impostor = alice.world.device("alice", one_time_prekeys=False, listed=False)
    for number in range(3):
        envelope = impostor.encrypt(bob, str(number))
        assert bob.receive(envelope).outcome is Outcome.WAITING_FOR_TRUST
    assert bob.sessions(impostor) == []
