"""Reviving old sessions, and piling up new ones (docs/attacks.md, row 24)."""

from e2ee.limits import FRESH_SESSION_MS, MAX_SESSIONS_PER_DEVICE
from e2ee.messenger import Outcome
from e2ee.notices import SessionReplaced
from e2ee.rollback import RelayStatement
from e2ee.session import Session
from e2ee.wire.content import ContentKind, encode_retry_request
from e2ee.wire.envelope import Envelope
from tests.world import Device, Snapshot, World, content_from, flip, talk


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


def test_a_second_session_of_a_known_device_is_told_and_a_first_one_is_not() -> None:
    world = World("told")
    alice, bob = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    assert bob.receive(alice.encrypt(bob, "first contact")).notices == ()
    world.wait(1)
    alice.start_session(bob)  # alice's device lost its state, or a thief of its identity keys is at work
    assert bob.receive(alice.encrypt(bob, "anew")).notices == (SessionReplaced(alice.address),)


# --- a session that leaked before its first message was delivered ---------------------------------------------


def withheld() -> tuple[Device, Device, bytes, Session, Snapshot]:
    """The relay kept the first message of a session, alice's store leaked, and both went on to a healed session."""
    alice, bob = established()
    alice.world.wait(1)
    stolen = alice.start_session(bob)
    first = alice.encrypt(bob, "kept by the relay")
    leaked = alice.snapshot()
    alice.world.wait(1)
    healed = bob.start_session(alice).session_id
    talk(bob, alice)
    assert alice.sending_session(bob).session_id == bob.sending_session(alice).session_id == healed
    return alice, bob, first, stolen, leaked


def test_a_first_message_kept_back_until_its_session_leaked_yields_nothing_that_was_said_since() -> None:
    """Its session comes to be here after the healed ones, so it may ask for what they carried."""
    alice, bob, first, stolen, leaked = withheld()
    said = [bob.encrypt(alice, "on the healed session")]
    bob.receive(flip(alice.encrypt(bob, "x"), -1))
    bob.world.settle()  # so that bob starts no further session for an hour
    said.append(bob.encrypt(alice, "on the fresh one"))
    for envelope in said:
        alice.receive(envelope)
    present = alice.snapshot()
    bob.receive(first)
    alice.restore(leaked)
    ids = tuple(Envelope.decode(each).envelope_id for each in said)
    request = content_from(alice, bob, kind=ContentKind.RETRY_REQUEST, body=encode_retry_request(ids)).encode()
    assert bob.receive(alice.seal(bob, request, alice.session_of(bob, stolen.session_id))).outcome is Outcome.CONSUMED
    alice.restore(present)
    alice.read()
    for _ in range(3):
        resent = [bob.encrypt(alice, "from now on")] if bob.messenger.missing_sessions(alice.user_id) == () else []
        bob.tend()
        resent += bob.world.network.in_flight
        assert_unreadable(alice, bob, resent, leaked)
        bob.world.settle()
        bob.world.wait(FRESH_SESSION_MS)
    assert bob.sending_session(alice).session_id == alice.sending_session(bob).session_id != stolen.session_id


def test_a_first_message_kept_back_until_its_session_leaked_is_not_answered_after_a_made_up_rollback() -> None:
    alice, bob, first, _, leaked = withheld()
    bob.messenger.delivery.note_connected(RelayStatement(1, 0, 1_000_000))
    assert bob.receive(first).outcome is Outcome.STORED
    answer = bob.encrypt(alice, "not for the thief")
    assert_unreadable(alice, bob, [answer], leaked)
    assert alice.receive(answer).outcome is Outcome.STORED


def assert_unreadable(alice: Device, bob: Device, envelopes: list[bytes], leaked: Snapshot) -> None:
    """The thief, with everything that alice had then, reads none of them. (Alice had published no prekeys yet.)"""
    present = alice.snapshot()
    alice.restore(leaked)
    assert all(alice.receive(each).outcome is Outcome.UNREADABLE for each in envelopes)
    alice.restore(present)
