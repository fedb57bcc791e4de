"""Session: a value that encrypts and decrypts contents; a failed call leaves it as it was."""

from typing import Final

import pytest

from e2ee import persist
from e2ee.errors import (
    AuthenticationError,
    DuplicateMessageError,
    E2EEError,
    MalformedMessageError,
    TooManySkippedError,
)
from e2ee.limits import (
    CLOSED_EPOCH_LIFETIME_MS,
    MAX_SKIP,
    PQ_STALLED_RECEIVED,
    PQ_STALLED_SENT,
    UNANSWERED_SESSION_MS,
)
from e2ee.pqxdh import Party, ResponderKeys
from e2ee.primitives import aead, kdf
from e2ee.private_keys import encapsulate
from e2ee.ratchet import triple_ratchet
from e2ee.ratchet.skipped_keys import nothing_skipped
from e2ee.ratchet.state import ClosedPqChain
from e2ee.ratchet.triple_ratchet import Arrival
from e2ee.session import Clock, DecryptedContent, Session, start_as_initiator, start_as_responder
from e2ee.wire.message import PreKeyMessage, RatchetHeader, RatchetMessage, decode_body
from e2ee.wire.padding import pad
from tests import ratchet_steps
from tests.wire_objects import NOW, make_device, seeded_rng, verified_list

ALICE: Final = make_device("alice")
BOB: Final = make_device("bob")
ALICE_PARTY: Final = Party(ALICE.address, ALICE.account.public, ALICE.signing.public, ALICE.identity.public)
BOB_PARTY: Final = Party(BOB.address, BOB.account.public, BOB.signing.public, BOB.identity.public)
BOB_KEYS: Final = ResponderKeys(BOB.identity, BOB.prekey, BOB.one_time, BOB.kem)
RNG: Final = seeded_rng("session")


ARRIVAL: Final = Arrival(nothing_skipped, NOW)


def initiator() -> Session:
    bundle = BOB.bundle().verify(verified_list(BOB), NOW)
    return start_as_initiator(ALICE_PARTY, ALICE.identity, bundle, Clock(NOW, NOW), RNG)


def sent(session: Session, content: bytes = b"content") -> tuple[Session, RatchetMessage]:
    session, body = session.encrypt(content, NOW, RNG)
    decoded = decode_body(body)
    return session, decoded.message if isinstance(decoded, PreKeyMessage) else decoded


def respond_to(body: bytes) -> DecryptedContent:
    first = PreKeyMessage.decode(body)
    session = start_as_responder(BOB_PARTY, BOB_KEYS, ALICE.address, first.handshake, NOW + 1)
    return session.decrypt(first.message, ARRIVAL)


def established() -> tuple[Session, Session]:
    alice, body = initiator().encrypt(b"first", NOW, RNG)
    bob = respond_to(body).session
    bob, reply = sent(bob, b"reply")
    return alice.decrypt(reply, ARRIVAL).session, bob


def refuse(session: Session, message: RatchetMessage, error: type[E2EEError]) -> None:
    before, serialised = session, persist.encode_session(session)
    with pytest.raises(error):
        session.decrypt(message, ARRIVAL)
    assert session == before
    assert persist.encode_session(session) == serialised


def test_the_first_message_establishes_the_session_on_both_ends() -> None:
    alice, body = initiator().encrypt(b"first", NOW, RNG)
    received = respond_to(body)
    assert received.content == b"first"
    assert received.session.session_id == alice.session_id
    assert received.session.origin.handshake_hash == alice.origin.handshake_hash
    assert received.session.peer == ALICE.address
    assert alice.peer == BOB.address
    assert alice.precedence == received.session.precedence


def test_a_recorded_encapsulation_takes_the_place_of_a_fresh_one() -> None:
    bundle = BOB.bundle().verify(verified_list(BOB), NOW)
    recorded = encapsulate(bundle.kem_prekey.public_key)
    session = start_as_initiator(
        ALICE_PARTY, ALICE.identity, bundle, Clock(NOW, NOW), RNG, encapsulate=lambda _theirs: recorded
    )
    assert session.pending_handshake is not None
    assert session.pending_handshake.kem_ciphertext == recorded[1]


def test_both_ends_know_who_initiated_and_when_they_did_so_themselves() -> None:
    alice, bob = established()
    assert (alice.origin.we_initiated, alice.origin.established_at) == (True, NOW)
    assert (bob.origin.we_initiated, bob.origin.established_at) == (False, NOW + 1)


def test_a_session_that_the_peer_started_is_wanted_from_our_first_message_on_it_and_stays_so() -> None:
    alice, body = initiator().encrypt(b"first", NOW, RNG)
    first = PreKeyMessage.decode(body)
    bob = start_as_responder(BOB_PARTY, BOB_KEYS, ALICE.address, first.handshake, NOW)
    assert not bob.is_wanted
    bob = bob.decrypt(first.message, ARRIVAL).session
    assert not bob.is_wanted
    bob, reply = sent(bob)
    assert bob.is_wanted
    _, turning = sent(alice.decrypt(reply, ARRIVAL).session)
    assert bob.decrypt(turning, ARRIVAL).session.is_wanted


def test_any_message_of_ours_settles_the_answer_that_is_owed() -> None:
    alice, bob = established()
    alice, plain = sent(alice)
    bob = bob.decrypt(plain, ARRIVAL).session
    assert not bob.owes_answer
    alice, offer = sent(alice.ask_for_healing()._replace(owes_answer=True))
    assert not alice.owes_answer
    owing = bob.decrypt(offer, ARRIVAL).session
    assert owing.owes_answer
    turn = alice.ratchets.pq.turn._replace(healing=False)
    without_payload = alice.ratchets._replace(pq=alice.ratchets.pq._replace(turn=turn))
    _, plain = sent(alice._replace(ratchets=without_payload))
    assert owing.decrypt(plain, ARRIVAL).session.owes_answer
    assert not sent(owing)[0].owes_answer


def test_the_handshake_is_repeated_until_the_first_reply_authenticates() -> None:
    alice, body = initiator().encrypt(b"unanswered", NOW, RNG)
    alice, again = alice.encrypt(b"unanswered too", NOW, RNG)
    assert PreKeyMessage.decode(body).handshake == PreKeyMessage.decode(again).handshake
    bob = respond_to(body).session
    assert not bob.carries_handshake
    bob, reply = sent(bob)
    forged = reply._replace(commitment=bytes(32))
    refuse(alice, forged, AuthenticationError)
    assert alice.carries_handshake
    alice = alice.decrypt(reply, ARRIVAL).session
    assert not alice.carries_handshake
    assert isinstance(decode_body(alice.encrypt(b"answered", NOW, RNG)[1]), RatchetMessage)


def test_the_handshake_hash_covers_the_message_up_to_the_end_of_the_kem_ciphertext() -> None:
    alice, body = initiator().encrypt(b"first", NOW, RNG)
    message = PreKeyMessage.decode(body).message.encode()
    assert alice.origin.handshake_hash == kdf.sha256(body[: len(body) - len(message) - 4])


def test_a_replayed_message_is_refused_and_leaves_the_session_unchanged() -> None:
    alice, bob = established()
    alice, message = sent(alice)
    bob = bob.decrypt(message, ARRIVAL).session
    refuse(bob, message, DuplicateMessageError)


def test_a_jump_over_the_limit_is_refused_and_one_at_the_limit_is_not() -> None:
    alice, bob = established()
    for _ in range(MAX_SKIP):
        alice, _ = sent(alice)
    alice, at_limit = sent(alice)
    _, beyond = sent(alice)
    refuse(bob, beyond, TooManySkippedError)
    received = bob.decrypt(at_limit, ARRIVAL)
    assert len(received.skipped) == 2 * MAX_SKIP


def test_the_skip_limit_may_be_raised_for_one_message() -> None:
    alice, bob = established()
    for _ in range(MAX_SKIP + 1):
        alice, _ = sent(alice)
    _, beyond = sent(alice)
    assert bob.decrypt(beyond, Arrival(nothing_skipped, NOW, MAX_SKIP + 1)).content == b"content"


def test_a_message_of_another_session_is_refused() -> None:
    alice, bob = established()
    other, _ = established()
    _, message = sent(other)
    refuse(bob, message, AuthenticationError)
    assert not bob.knows(message, nothing_skipped)
    assert alice.session_id != other.session_id


def test_our_own_message_reflected_at_us_is_refused() -> None:
    alice, bob = established()
    for session in (alice, bob):
        after, message = sent(session)
        refuse(after, message, AuthenticationError)


@pytest.mark.parametrize(
    "padded",
    [bytes(256), b"c" * 256, b"c\x80" + b"\x01" * 254, b"c\x80".ljust(512, b"\0"), pad(b"c" * 300) + b"\0"],
    ids=["only zeros", "no marker", "wrong filler", "twice the length", "one byte more"],
)
def test_wrong_padding_inside_an_authentic_message_is_refused_and_changes_nothing(padded: bytes) -> None:
    alice, bob = established()
    double, pq = (
        ratchet_steps.send(alice.ratchets.double, RNG),
        ratchet_steps.pq_send(alice.ratchets.pq),
    )
    output = kdf.kdf(pq.message_key, triple_ratchet.MESSAGE_LABEL, double.message_key)
    prefix = RatchetHeader(*double.header, 0, pq.state.sending.next_index - 1).encode() + output[32:] + bytes(12)
    body = prefix + aead.seal(output[:32], bytes(12), padded, alice.session_id + prefix)
    refuse(bob, RatchetMessage.decode(body), MalformedMessageError)


def test_message_keys_are_unrecoverable_from_a_later_state() -> None:
    """No secret of an old state survives in a new one's bytes, once all its messages have arrived."""
    alice, bob = established()
    alice, message = sent(alice)
    old = bob
    bob = bob.decrypt(message, ARRIVAL).session
    bob, reply = sent(bob)
    alice = alice.decrypt(reply, ARRIVAL).session
    alice, message = sent(alice)
    bob = bob.decrypt(message, ARRIVAL).session
    later = persist.encode_session(bob)
    double, pq = old.ratchets.double, old.ratchets.pq
    assert double.sending is not None
    assert double.receiving is not None
    assert double.our_ratchet_key_pair is not None
    gone = (
        double.root_key,
        double.sending.key,
        double.receiving.key,
        double.our_ratchet_key_pair.private,
        pq.sending.key,
        pq.receiving[0].key,
    )
    for secret in gone:
        raw = secret if isinstance(secret, bytes) else secret.expose()
        assert raw in persist.encode_session(old)
        assert raw not in later


def test_the_ratchet_private_key_is_gone_from_the_state_right_after_a_receive() -> None:
    alice, bob = established()
    pair = bob.ratchets.double.our_ratchet_key_pair
    assert pair is not None
    _, message = sent(alice)
    assert pair.private.expose() not in persist.encode_session(bob.decrypt(message, ARRIVAL).session)


def test_a_sent_message_key_is_gone_from_the_state_that_released_it() -> None:
    alice, _ = established()
    sending = ratchet_steps.send(alice.ratchets.double, seeded_rng("key"))
    assert sending.message_key not in persist.encode_session(alice.encrypt(b"content", NOW, seeded_rng("key"))[0])


def test_an_unanswered_session_is_not_used_for_sending_after_30_days() -> None:
    session = initiator()
    assert session.may_send(NOW + UNANSWERED_SESSION_MS)
    assert not session.may_send(NOW + UNANSWERED_SESSION_MS + 1)
    answered, responded = established()
    assert answered.may_send(NOW + 10 * UNANSWERED_SESSION_MS)
    assert responded.may_send(NOW + 10 * UNANSWERED_SESSION_MS)


def test_a_dead_session_still_receives() -> None:
    alice, bob = established()
    bob = bob.mark_dead()
    assert not bob.may_send(NOW)
    _, message = sent(alice)
    received = bob.decrypt(message, ARRIVAL)
    assert received.content == b"content"
    assert received.session.dead


def test_closed_epochs_are_forgotten_after_7_days_and_nothing_else_changes() -> None:
    session, _ = established()
    pq = session.ratchets.pq
    with_closed = pq._replace(closed=(ClosedPqChain(pq.receiving[0], NOW, 0),))
    closed = session._replace(ratchets=session.ratchets._replace(pq=with_closed))

    assert closed.forget_closed_chains(NOW + CLOSED_EPOCH_LIFETIME_MS) is closed
    assert closed.forget_closed_chains(NOW + CLOSED_EPOCH_LIFETIME_MS + 1) == session


def test_the_message_that_shows_that_an_epoch_has_stalled_is_the_only_one_to_say_so() -> None:
    alice, bob = established()
    counted = bob.ratchets.pq._replace(sent=PQ_STALLED_SENT, received=PQ_STALLED_RECEIVED - 2)
    bob = bob._replace(ratchets=bob.ratchets._replace(pq=counted))
    said = []
    for _ in range(3):
        alice, message = sent(alice)
        received = bob.decrypt(message, ARRIVAL)
        bob = received.session
        said.append(received.epoch_stalled)
    assert said == [False, True, False]


def test_contents_of_all_sizes_come_back_as_they_were() -> None:
    alice, bob = established()
    for size in (0, 1, 254, 255, 256, 257, 1000, 65536):
        alice, message = sent(alice, b"\x80" * size)
        received = bob.decrypt(message, ARRIVAL)
        bob = received.session
        assert received.content == b"\x80" * size
