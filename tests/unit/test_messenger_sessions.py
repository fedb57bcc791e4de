"""Several sessions with one device: which one sends, which one decrypts, how simultaneous starts converge."""

from itertools import permutations

import pytest

from e2ee.errors import AuthenticationError, SessionNotFoundError, TooManySkippedError
from e2ee.limits import (
    LATE_ENVELOPE_MS,
    MAX_SESSIONS_PER_DEVICE,
    MAX_SKIP,
    MAX_TIMESTAMP,
    SKIPPED_KEY_LIFETIME_MS,
    UNANSWERED_SESSION_MS,
)
from e2ee.messenger import Outcome
from e2ee.ports import Table
from e2ee.session import Clock, start_as_initiator
from e2ee.stores import session_records
from e2ee.wire.envelope import Envelope
from e2ee.wire.message import RatchetMessage
from tests.world import Device, Faults, World, changed, content_from, talk, unchanged, without


def pair(seed: int | str = "sessions") -> tuple[Device, Device]:
    world = World(seed)
    return world.device("alice", one_time_prekeys=False), world.device("bob", one_time_prekeys=False)


def assert_converged(alice: Device, bob: Device) -> None:
    assert alice.sending_session(bob).session_id == bob.sending_session(alice).session_id


def chat(alice: Device, bob: Device, rounds: int = 2) -> None:
    """Exchange messages that must arrive."""
    for number in range(rounds):
        for sender, recipient in ((alice, bob), (bob, alice)):
            assert recipient.receive(sender.encrypt(recipient, str(number))).outcome is Outcome.STORED
            assert recipient.read()[-1] == str(number)


@pytest.mark.parametrize("gap", [-5, 0, 5])
@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_simultaneous_initiation_converges_in_every_order_of_arrival(order: tuple[int, ...], gap: int) -> None:
    alice, bob = pair()
    first = [(bob, alice.encrypt(bob, "a0")), (bob, alice.encrypt(bob, "a1"))]
    alice.world.wait(gap)
    second = [(alice, bob.encrypt(alice, "b0")), (alice, bob.encrypt(alice, "b1"))]
    envelopes = first + second
    for at in order:
        recipient, envelope = envelopes[at]
        assert recipient.receive(envelope).outcome is Outcome.STORED
    assert sorted(map(str, bob.read())) == ["a0", "a1"]
    assert sorted(map(str, alice.read())) == ["b0", "b1"]
    assert_converged(alice, bob)
    chat(alice, bob)
    assert_converged(alice, bob)
    assert not alice.sending_session(bob).carries_handshake


@pytest.mark.parametrize("lost", ["alice's", "bob's"])
def test_simultaneous_initiation_with_loss_converges(lost: str) -> None:
    alice, bob = pair()
    from_alice, from_bob = alice.encrypt(bob, "a"), bob.encrypt(alice, "b")
    if lost == "alice's":
        alice.receive(from_bob)
    else:
        bob.receive(from_alice)
    chat(alice, bob)
    assert_converged(alice, bob)
    # The lost ones may still come, weeks later, and change nothing about which session sends.
    assert alice.receive(from_bob).outcome in (Outcome.STORED, Outcome.DUPLICATE)
    assert bob.receive(from_alice).outcome in (Outcome.STORED, Outcome.DUPLICATE)
    chat(alice, bob)
    assert_converged(alice, bob)


def test_repeated_simultaneous_initiations_converge() -> None:
    alice, bob = pair()
    for number in range(5):
        alice.world.wait(1)
        alice.start_session(bob)
        bob.start_session(alice)
        crossing = alice.encrypt(bob, f"a{number}"), bob.encrypt(alice, f"b{number}")
        assert alice.receive(crossing[1]).outcome is Outcome.STORED
        assert bob.receive(crossing[0]).outcome is Outcome.STORED
        alice.read(), bob.read()
        assert_converged(alice, bob)
    chat(alice, bob)


@pytest.mark.parametrize("seed", range(5))
def test_simultaneous_initiation_over_a_bad_network_converges_once_it_heals(seed: int) -> None:
    alice, bob = pair(seed)
    world = alice.world
    for number in range(12):
        world.wait(world.random.randrange(3))
        sender, recipient = (alice, bob) if world.random.random() < 0.5 else (bob, alice)
        if world.random.random() < 0.2:
            sender.start_session(recipient)
        sender.send(recipient, str(number))
        if world.random.random() < 0.4:
            world.deliver(Faults(loss=0.3, duplicates=0.3, reorders=True))
    world.deliver(Faults(reorders=True))
    alice.read(), bob.read()
    for sender, recipient in ((alice, bob), (bob, alice), (alice, bob)):
        recipient.receive(sender.encrypt(recipient, "heal"))
    assert_converged(alice, bob)


def test_the_session_with_the_highest_created_sends_and_receiving_does_not_change_that() -> None:
    alice, bob = pair()
    talk(alice, bob)
    old = bob.sending_session(alice)
    late = [bob.encrypt(alice, f"late {number}") for number in range(3)]
    alice.world.wait(1)
    alice.start_session(bob)
    bob.receive(alice.encrypt(bob, "fresh"))
    newest = alice.sending_session(bob).session_id
    assert newest != old.session_id
    for envelope in late:
        assert alice.receive(envelope).outcome is Outcome.STORED
        assert alice.sending_session(bob).session_id == newest
    assert bob.sending_session(alice).session_id == newest


def test_created_rises_even_when_the_clock_stands_still_or_goes_back() -> None:
    alice, bob = pair()
    created = []
    for step in (0, 0, -1000):
        alice.world.wait(step)
        created.append(alice.start_session(bob).origin.created)
    assert created == [created[0], created[0] + 1, created[0] + 2]


def test_a_peer_that_used_the_highest_created_does_not_stop_us_from_starting_sessions() -> None:
    alice, bob = pair()
    alice.meet(bob)
    contact = alice.messenger.contact(bob.user_id)
    assert contact is not None
    bundle = bob.bundle().verify(contact.device_list, alice.world.now)
    party, pairs = alice.messenger.account.party, alice.messenger.account.identity_key_pair
    latest = Clock(MAX_TIMESTAMP, alice.world.now)
    session = start_as_initiator(party, pairs, bundle, latest, alice.world.random.randbytes)
    with alice.store.write() as tx:
        session_records.add_session(tx, session)
    assert bob.receive(alice.encrypt(bob, "from the future")).outcome is Outcome.STORED
    assert bob.start_session(alice).origin.created == MAX_TIMESTAMP
    # Which of the two is higher, the transcripts decide; each end may send on its own.
    assert alice.receive(bob.encrypt(alice, "reply")).outcome is Outcome.STORED
    assert bob.receive(alice.encrypt(bob, "and back")).outcome is Outcome.STORED


def test_a_late_message_of_an_older_session_is_read_although_newer_ones_are_asked_first() -> None:
    """Indices count in the chains of one session: to another, the header looks like a duplicate's."""
    alice, bob = pair()
    talk(alice, bob)
    late = [bob.encrypt(alice, f"late {number}") for number in range(2)]
    alice.world.wait(1)
    alice.start_session(bob)
    for number in range(5):
        bob.receive(alice.encrypt(bob, f"to {number}"))
        alice.receive(bob.encrypt(alice, f"fro {number}"))
    bob.receive(alice.encrypt(bob, "so that alice could turn"))
    alice.read()
    assert [alice.receive(each).outcome for each in late] == [Outcome.STORED] * 2
    assert alice.read() == ["late 0", "late 1"]


def test_a_message_far_along_an_older_session_is_read_although_newer_ones_would_have_to_skip_too_much() -> None:
    alice, bob = pair()
    talk(alice, bob)
    for _ in range(MAX_SKIP + 10):
        alice.receive(bob.encrypt(alice, "many"))
    bob.receive(alice.encrypt(bob, "turn"))
    late = bob.encrypt(alice, "late")
    header = RatchetMessage.decode(Envelope.decode(late).body).header
    assert header.previous_chain_length > MAX_SKIP
    assert header.pq_index > MAX_SKIP
    alice.world.wait(1)
    alice.start_session(bob)
    bob.receive(alice.encrypt(bob, "fresh"))
    alice.receive(bob.encrypt(alice, "reply"))
    bob.receive(alice.encrypt(bob, "so that alice could turn"))
    alice.read()
    assert alice.receive(late).outcome is Outcome.STORED
    assert alice.read() == ["late"]


def test_a_jump_over_the_limit_is_named_as_such_and_changes_nothing() -> None:
    alice, bob = pair()
    talk(alice, bob)
    for _ in range(MAX_SKIP + 1):
        alice.encrypt(bob, "lost")
    with unchanged(bob, Table.UNREADABLE):
        reception = bob.receive(alice.encrypt(bob, "too far"))
    assert reception.outcome is Outcome.UNREADABLE
    assert isinstance(reception.error, TooManySkippedError)


def test_a_message_that_no_session_can_read_is_refused_and_changes_nothing() -> None:
    alice, bob = pair()
    envelope = alice.encrypt(bob, "hello")
    talk(alice, bob)
    stray = alice.encrypt(bob, "established")
    bob.forget_sessions(alice)
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(stray).error, SessionNotFoundError)
    # A fresh session exists, but it is not the one that wrote the message.
    alice.world.wait(1)
    alice.start_session(bob)
    bob.receive(alice.encrypt(bob, "fresh"))
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(stray).error, AuthenticationError)
    assert envelope != stray


def test_an_unanswered_session_expires_for_sending_and_comes_back_with_an_answer() -> None:
    alice, bob = pair()
    first = alice.encrypt(bob, "anybody there?")
    alice.world.wait(UNANSWERED_SESSION_MS)
    alice.meet(bob)  # the list has expired, too
    assert alice.messenger.missing_sessions(bob.user_id) == ()
    alice.world.wait(1)
    assert alice.messenger.missing_sessions(bob.user_id) == (bob.address,)
    bob.receive(first)
    alice.receive(bob.encrypt(alice, "yes"))
    assert alice.messenger.missing_sessions(bob.user_id) == ()


def test_no_more_than_20_sessions_are_kept_and_the_lowest_goes_with_its_skipped_keys() -> None:
    alice, bob = pair()
    lost, read = alice.encrypt(bob, "lost"), alice.encrypt(bob, "read")
    assert lost != read
    bob.receive(read)
    oldest = bob.sending_session(alice).session_id
    assert bob.messenger.status().skipped_keys == 2
    for number in range(MAX_SESSIONS_PER_DEVICE):
        alice.world.wait(1)
        alice.start_session(bob)
        bob.receive(alice.encrypt(bob, str(number)))
    sessions = bob.sessions(alice)
    assert len(sessions) == MAX_SESSIONS_PER_DEVICE
    assert oldest not in {session.session_id for session in sessions}
    assert bob.messenger.status().skipped_keys == 0
    assert_converged(alice, bob)


def test_a_new_session_that_is_itself_the_lowest_leaves_no_skipped_keys_behind() -> None:
    """Otherwise a hostile peer fills the store: each of its first messages would leave keys that nobody deletes."""
    alice, bob = pair()
    alice.meet(bob)
    bob.bundle()
    snapshot = alice.snapshot()
    for _ in range(MAX_SESSIONS_PER_DEVICE):
        alice.world.wait(10)
        alice.start_session(bob)
        bob.receive(alice.encrypt(bob, "higher"))
    alice.world.wait(-100_000)
    alice.restore(snapshot)
    alice.start_session(bob)
    for _ in range(9):
        alice.encrypt(bob, "lost")
    assert bob.receive(alice.encrypt(bob, "lowest")).outcome is Outcome.STORED
    assert len(bob.sessions(alice)) == MAX_SESSIONS_PER_DEVICE
    assert bob.messenger.status().skipped_keys == 0


def test_prune_deletes_a_superseded_session_only_when_no_late_envelope_can_need_it() -> None:
    alice, bob = pair()
    talk(alice, bob)
    late = bob.encrypt(alice, "late")
    alice.world.wait(1)
    alice.start_session(bob)
    bob.receive(alice.encrypt(bob, "fresh"))
    alice.receive(bob.encrypt(alice, "reply"))
    alice.world.wait(LATE_ENVELOPE_MS)
    alice.messenger.prune()
    assert len(alice.sessions(bob)) == 2
    assert alice.receive(late).outcome is Outcome.STORED
    alice.world.wait(1)
    alice.messenger.prune()
    assert len(alice.sessions(bob)) == 1
    chat(alice, bob)


def test_prune_keeps_the_only_session_for_ever() -> None:
    alice, bob = pair()
    talk(alice, bob)
    alice.world.wait(100 * LATE_ENVELOPE_MS)
    alice.messenger.prune()
    bob.messenger.prune()
    chat(alice, bob)


def test_a_dead_session_is_not_used_for_sending_but_still_reads() -> None:
    alice, bob = pair()
    talk(alice, bob)
    dead = alice.sending_session(bob).mark_dead()
    with alice.store.write() as tx:
        session_records.save_session(tx, dead)
    assert alice.messenger.missing_sessions(bob.user_id) == (bob.address,)
    assert alice.receive(bob.encrypt(alice, "still readable")).outcome is Outcome.STORED
    assert alice.messenger.missing_sessions(bob.user_id) == (bob.address,)


def test_reading_changes_only_the_session_that_read() -> None:
    alice, bob = pair()
    talk(alice, bob)
    late = bob.encrypt(alice, "late")
    alice.world.wait(SKIPPED_KEY_LIFETIME_MS)
    alice.start_session(bob)
    before = {session.session_id: session for session in alice.sessions(bob)}
    alice.receive(late)
    after = {session.session_id: session for session in alice.sessions(bob)}
    assert {each for each in before if before[each] != after[each]} == {bob.sending_session(alice).session_id}


def test_the_envelope_of_a_session_is_useless_under_another_envelope_id_once_it_was_read() -> None:
    alice, bob = pair()
    talk(alice, bob)
    envelope = alice.encrypt(bob, "hello")
    bob.receive(envelope)
    again = changed(envelope, envelope_id=Envelope.decode(bob.wrap(alice, b"")).envelope_id)
    with unchanged(bob):
        assert bob.receive(again).outcome is Outcome.DUPLICATE


def test_one_message_in_two_ciphertexts_reaches_the_application_once() -> None:
    alice, bob = pair()
    talk(alice, bob)
    encoded = content_from(alice, bob).encode()
    once, again = alice.seal(bob, encoded), alice.seal(bob, encoded)
    assert bob.receive(once).outcome is Outcome.STORED
    before = without(bob.snapshot(), Table.SESSIONS, Table.BODY_HASHES)
    assert bob.receive(again).outcome is Outcome.CONSUMED
    assert without(bob.snapshot(), Table.SESSIONS, Table.BODY_HASHES) == before
    assert bob.read() == ["hello"]
