"""Wrong bundles from the server; a network that repeats, loses, crosses and reorders (docs/attacks.md, scenarios)."""

from dataclasses import replace
from itertools import permutations, product

import pytest

from e2ee.account import PreKeyKind, generate_prekey
from e2ee.errors import (
    AuthenticationError,
    DuplicateMessageError,
    InvalidSignatureError,
    TooManySkippedError,
    UnknownPreKeyError,
    WrongRecipientError,
)
from e2ee.limits import MAX_SESSIONS_PER_DEVICE, MAX_SKIP, UNANSWERED_SESSION_MS
from e2ee.messenger import Outcome
from e2ee.ports import Table
from e2ee.stores import records
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import PreKeyId
from tests.world import Device, World, changed, flip, talk, unchanged


def people(*names: str, one_time_prekeys: bool = False) -> list[Device]:
    world = World("hostile delivery")
    return [world.device(name, one_time_prekeys=one_time_prekeys) for name in names]


# --- bundles -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["signed_prekey", "kem_prekey"])
def test_a_bundle_with_a_bad_prekey_signature_starts_no_session(part: str) -> None:
    alice, bob = people("alice", "bob")
    alice.meet(bob)
    bundle = bob.bundle()
    prekey = getattr(bundle, part)
    bad = replace(bundle, **{part: replace(prekey, signature=flip(prekey.signature, 100))})
    with unchanged(alice), pytest.raises(InvalidSignatureError):
        alice.messenger.start_session(bad)


def test_a_bundle_served_to_two_people_starts_one_session_and_harms_nothing_else() -> None:
    alice, carol, bob = people("alice", "carol", "bob", one_time_prekeys=True)
    bundle = bob.bundle()
    for device in (alice, carol):
        device.meet(bob)
        device.messenger.start_session(bundle)
    assert bob.receive(alice.encrypt(bob, "first")).outcome is Outcome.STORED
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(carol.encrypt(bob, "second")).error, UnknownPreKeyError)


def test_a_server_that_keeps_the_one_time_prekeys_back_stops_nobody() -> None:
    alice, bob = people("alice", "bob", one_time_prekeys=True)
    alice.meet(bob)
    bob.publish()
    held = bob.world.directory.prekeys[bob.address]
    alice.messenger.start_session(replace(bob.bundle(), one_time_prekey=None, kem_prekey=held.last_resort))
    talk(alice, bob)


def test_a_prekey_whose_id_is_zero_is_used_up_like_any_other() -> None:
    alice, bob = people("alice", "bob")
    zero = generate_prekey(PreKeyKind.ONE_TIME, PreKeyId(0), bob.world.now, bob.world.random.randbytes)
    with bob.store.write() as tx:
        records.save_prekey(tx, zero)
    alice.meet(bob)
    alice.messenger.start_session(replace(bob.bundle(), one_time_prekey=bob.messenger.account.one_time_prekey(zero)))
    assert bob.receive(alice.encrypt(bob, "hello")).outcome is Outcome.STORED
    with bob.store.read() as tx:
        assert records.load_prekey(tx, PreKeyId(0)) is None


# --- repetitions, losses, jumps ------------------------------------------------------------------------------


def test_a_repeated_first_message_is_a_duplicate_even_when_newer_sessions_have_archived_its_own() -> None:
    alice, bob = people("alice", "bob")
    first = alice.encrypt(bob, "first")
    again = changed(first, envelope_id=Envelope.decode(alice.wrap(bob, b"")).envelope_id)
    assert bob.receive(first).outcome is Outcome.STORED
    for _ in range(MAX_SESSIONS_PER_DEVICE // 2):
        with unchanged(bob):
            assert isinstance(bob.receive(again).error, DuplicateMessageError)
        bob.world.wait(1)
        alice.start_session(bob)
        talk(alice, bob)


def test_a_jump_beyond_the_limit_is_named_and_changes_nothing_and_one_within_it_is_read() -> None:
    alice, bob = people("alice", "bob")
    talk(alice, bob)
    lost = [alice.encrypt(bob, "lost") for _ in range(MAX_SKIP + 1)]
    with unchanged(bob, Table.UNREADABLE):
        assert isinstance(bob.receive(alice.encrypt(bob, "too far")).error, TooManySkippedError)
    for envelope in (lost[-1], lost[0]):
        assert bob.receive(envelope).outcome is Outcome.STORED


def test_a_message_that_fails_changes_nothing_and_the_real_one_is_read_after_all() -> None:
    alice, bob = people("alice", "bob")
    for text in ("first message", "later message"):
        envelope = alice.encrypt(bob, text)
        body = Envelope.decode(envelope).body
        with unchanged(bob, Table.UNREADABLE):
            bad = bob.receive(changed(envelope, body=flip(body, 8 * len(body) - 1)))
            assert isinstance(bad.error, AuthenticationError)
        assert bob.receive(envelope).outcome is Outcome.STORED
        alice.receive(bob.encrypt(alice, "answer"))


def test_a_message_for_somebody_else_is_refused_by_name() -> None:
    alice, bob, carol = people("alice", "bob", "carol")
    with unchanged(carol, Table.UNREADABLE):
        assert isinstance(carol.receive(alice.encrypt(bob, "for bob")).error, WrongRecipientError)


# --- who sends on what ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [None, 0, 1, 2, 3])
def test_simultaneous_starts_converge_in_every_order_and_with_any_message_lost(lost: int | None) -> None:
    for order in permutations(range(4)):
        alice, bob = people("alice", "bob")
        envelopes = [alice.encrypt(bob, "a"), bob.encrypt(alice, "b"), alice.encrypt(bob, "a"), bob.encrypt(alice, "b")]
        for number in order:
            if number != lost:
                (bob, alice)[number % 2].receive(envelopes[number])
        talk(alice, bob)
        assert alice.sending_session(bob).session_id == bob.sending_session(alice).session_id


@pytest.mark.parametrize("lost", list(product((False, True), repeat=2)), ids=["nothing", "bob's", "alice's", "both"])
@pytest.mark.parametrize("gap", [-1, 0, 1], ids=["clock back", "same moment", "later"])
def test_simultaneous_starts_again_and_again_converge_whatever_is_lost(lost: tuple[bool, bool], gap: int) -> None:
    alice, bob = people("alice", "bob")
    talk(alice, bob)
    late: list[tuple[Device, bytes]] = []
    for number in range(5):
        alice.world.wait(gap)
        alice.start_session(bob)
        bob.start_session(alice)
        crossing = (bob, alice.encrypt(bob, f"a{number}")), (alice, bob.encrypt(alice, f"b{number}"))
        for (recipient, envelope), is_lost in zip(crossing, lost, strict=True):
            if is_lost:
                late.append((recipient, envelope))
            else:
                assert recipient.receive(envelope).outcome is Outcome.STORED
    for sender, recipient in ((alice, bob), (bob, alice), (alice, bob)):
        assert recipient.receive(sender.encrypt(recipient, "after the crossings")).outcome is Outcome.STORED
    assert alice.sending_session(bob).session_id == bob.sending_session(alice).session_id
    # What was lost comes late: it is read, and moves nobody to another session.
    for recipient, envelope in late:
        assert recipient.receive(envelope).outcome is Outcome.STORED
    assert alice.sending_session(bob).session_id == bob.sending_session(alice).session_id


def test_a_session_that_nobody_answers_is_given_up_after_30_days() -> None:
    alice, bob = people("alice", "bob")
    alice.encrypt(bob, "kept back by the network")
    alice.world.wait(UNANSWERED_SESSION_MS + 1)
    alice.meet(bob)  # by then the list known has expired
    assert alice.messenger.missing_sessions(bob.user_id) == (bob.address,)
