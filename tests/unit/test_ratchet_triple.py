"""Both ratchets together under the key-committing AEAD."""

from collections.abc import Iterator
from typing import Final

import pytest

from e2ee.errors import (
    AuthenticationError,
    DuplicateMessageError,
    EpochUnknownError,
    MalformedMessageError,
    ProtocolError,
    TooManySkippedError,
    UnsupportedVersionError,
)
from e2ee.limits import MAX_SKIP
from e2ee.primitives import aead
from e2ee.primitives.kdf import kdf
from e2ee.private_keys import PreKeyPair, RootKey, SharedSecret
from e2ee.ratchet import double_ratchet, pq_ratchet, pq_turns, triple_ratchet
from e2ee.ratchet.skipped_keys import FindSkipped, Ratchet, nothing_skipped
from e2ee.ratchet.state import RatchetState
from e2ee.ratchet.triple_ratchet import Arrival
from e2ee.wire.message import PQ_PAYLOAD_LENGTHS, PqPayloadType, RatchetHeader, RatchetMessage
from e2ee.wire.public_keys import RatchetPublicKey
from tests import ratchet_steps
from tests.wire_objects import NOW, seeded_rng

AD: Final = b"\x33" * 32
PLAINTEXT: Final = b"\x44" * 256
RNG: Final = seeded_rng("triple ratchet")
ARRIVAL: Final = Arrival(nothing_skipped, NOW)


def ends(root: bytes = b"\x11" * 32, pq: bytes = b"\x22" * 32) -> tuple[RatchetState, RatchetState]:
    """Return initiator and responder."""
    rng = seeded_rng("prekey")
    prekey = PreKeyPair.generate(rng)
    return (
        RatchetState(
            double_ratchet.start_as_initiator(RootKey(root), prekey.public),
            pq_ratchet.start(SharedSecret(pq), initiator=True, now=NOW),
        ),
        RatchetState(
            double_ratchet.start_as_responder(RootKey(root), prekey),
            pq_ratchet.start(SharedSecret(pq), initiator=False, now=NOW),
        ),
    )


def encrypted(state: RatchetState, count: int = 1) -> tuple[RatchetState, list[RatchetMessage]]:
    messages = []
    for _ in range(count):
        state, encoded = triple_ratchet.encrypt(state, AD, PLAINTEXT, NOW, RNG)
        messages.append(RatchetMessage.decode(encoded))
    return state, messages


def established() -> tuple[RatchetState, RatchetState]:
    """Return both ends after a message each way, so that either may send and neither has a key to skip."""
    alice, bob = ends()
    alice, (first,) = encrypted(alice)
    bob = ratchet_steps.decrypt(bob, AD, first, ARRIVAL).state
    bob, (reply,) = encrypted(bob)
    return ratchet_steps.decrypt(alice, AD, reply, ARRIVAL).state, bob


def refuse(state: RatchetState, message: RatchetMessage, error: type[Exception], ad: bytes = AD) -> None:
    before = state
    with pytest.raises(error):
        ratchet_steps.decrypt(state, ad, message, ARRIVAL)
    assert state == before


def flipped(message: RatchetMessage) -> Iterator[tuple[int, bytes]]:
    encoded = message.encode()
    for at in range(len(encoded)):
        yield at, encoded[:at] + bytes([encoded[at] ^ 1]) + encoded[at + 1 :]


def test_a_conversation_with_loss_and_reordering_decrypts() -> None:
    alice, bob = established()
    alice, (m0, m1, m2) = encrypted(alice, 3)
    late = ratchet_steps.decrypt(bob, AD, m2, ARRIVAL)
    assert late.plaintext == PLAINTEXT
    assert len(late.skipped) == 4, "two keys in each of the two ratchets"
    found = {each.position: each.key for each in late.skipped}
    find: FindSkipped = found.get
    first = ratchet_steps.decrypt(late.state, AD, m0, Arrival(find, NOW))
    assert set(first.used) < set(found)
    assert len(first.used) == 2
    assert ratchet_steps.decrypt(first.state, AD, m1, Arrival(find, NOW)).plaintext == PLAINTEXT


@pytest.mark.parametrize("ratchet", Ratchet)
def test_a_message_that_uses_up_a_skipped_key_of_one_ratchet_names_that_one(ratchet: Ratchet) -> None:
    alice, bob = established()
    alice, (turning,) = encrypted(alice)
    bob = ratchet_steps.decrypt(bob, AD, turning, ARRIVAL).state
    after_first, _ = encrypted(alice)
    after_second, (second,) = encrypted(after_first)
    received = ratchet_steps.decrypt(bob, AD, second, ARRIVAL)
    found = {each.position: each.key for each in received.skipped}
    # A late message in one ratchet and the next one in the other: nobody honest pairs them so.
    double, pq = (alice, after_second) if ratchet is Ratchet.DOUBLE else (after_second, alice)
    _, (mixed,) = encrypted(RatchetState(double.double, pq.pq))
    (used,) = ratchet_steps.decrypt(received.state, AD, mixed, Arrival(found.get, NOW)).used
    assert used.ratchet is ratchet
    assert used in found


@pytest.mark.parametrize("ratchet", Ratchet)
def test_what_a_message_overtakes_in_one_ratchet_alone_is_kept(ratchet: Ratchet) -> None:
    alice, bob = established()
    after_lost, _ = encrypted(alice)
    # The last message of an epoch is lost, and the first of the next arrives: a gap in the Double Ratchet and none in
    # the other. The opposite only a hostile peer makes.
    double, pq = (after_lost, alice) if ratchet is Ratchet.DOUBLE else (alice, after_lost)
    _, (message,) = encrypted(RatchetState(double.double, pq.pq))
    (skipped,) = ratchet_steps.decrypt(bob, AD, message, ARRIVAL).skipped
    assert skipped.position.ratchet is ratchet


def test_a_message_in_order_overtakes_nothing_and_uses_up_no_skipped_key() -> None:
    alice, bob = established()
    _, (message,) = encrypted(alice)
    received = ratchet_steps.decrypt(bob, AD, message, ARRIVAL)
    assert (received.skipped, received.used) == ((), ())


def test_every_message_that_authenticates_is_counted_once() -> None:
    alice, bob = established()
    before = bob.receives
    for count in (1, 2, 3):
        alice, (message,) = encrypted(alice)
        bob = ratchet_steps.decrypt(bob, AD, message, ARRIVAL).state
        assert bob.receives == before + count


def test_every_flipped_byte_is_refused_and_changes_nothing() -> None:
    alice, bob = established()
    _, (message,) = encrypted(alice)
    for at, tampered in flipped(message):
        if at in (0, 1, 50, 51, 52):  # version, type; type and length of the post-quantum payload
            with pytest.raises((UnsupportedVersionError, MalformedMessageError)):
                RatchetMessage.decode(tampered)
            continue
        refuse(bob, RatchetMessage.decode(tampered), ProtocolError)


def test_a_wrong_commitment_and_a_wrong_tag_are_the_same_error() -> None:
    alice, bob = established()
    _, (message,) = encrypted(alice)
    errors = []
    for tampered in (
        message._replace(commitment=bytes(32)),
        message._replace(ciphertext=message.ciphertext[:-1] + bytes([message.ciphertext[-1] ^ 1])),
    ):
        with pytest.raises(AuthenticationError) as caught:
            ratchet_steps.decrypt(bob, AD, tampered, ARRIVAL)
        errors.append((type(caught.value), str(caught.value), caught.value.__cause__))
    assert errors[0] == errors[1]


def test_a_tag_that_fits_under_another_key_does_not_open_without_its_commitment() -> None:
    """GCM alone would let one ciphertext open under two keys; the commitment names the one."""
    alice, bob = established()
    _, (message,) = encrypted(alice)
    foreign = aead.seal(bytes(32), message.nonce, PLAINTEXT, AD + message.prefix)
    refuse(bob, message._replace(ciphertext=foreign), AuthenticationError)


def test_other_associated_data_is_refused() -> None:
    alice, bob = established()
    _, (message,) = encrypted(alice)
    refuse(bob, message, AuthenticationError, ad=b"\x34" * 32)


@pytest.mark.parametrize("half", [{"root": b"\x12" * 32}, {"pq": b"\x23" * 32}], ids=["double", "post-quantum"])
def test_knowing_one_ratchet_is_not_enough(half: dict[str, bytes]) -> None:
    alice, _ = ends()
    _, eve = ends(**half)
    _, (message,) = encrypted(alice)
    refuse(eve, message, AuthenticationError)


def test_an_unknown_epoch_is_refused() -> None:
    alice, bob = established()
    _, (message,) = encrypted(alice)
    refuse(bob, message._replace(fields=message.header._replace(pq_epoch=1)), EpochUnknownError)


def _with_payload(state: RatchetState, kind: PqPayloadType, payload: bytes) -> RatchetMessage:
    """Encrypt as a hostile peer does, with any payload for the post-quantum ratchet."""
    double, pq = ratchet_steps.send(state.double, RNG), ratchet_steps.pq_send(state.pq)
    output = kdf(pq.message_key, triple_ratchet.MESSAGE_LABEL, double.message_key)
    header = RatchetHeader(*double.header, 0, pq.state.sending.next_index - 1, kind, payload)
    prefix = header.encode() + output[32:] + bytes(12)
    return RatchetMessage.decode(prefix + aead.seal(output[:32], bytes(12), PLAINTEXT, AD + prefix))


@pytest.mark.parametrize("kind", [PqPayloadType.ENCAPSULATION_KEY, PqPayloadType.CIPHERTEXT])
def test_a_payload_without_the_right_mac_is_refused_although_its_message_is_authentic(kind: PqPayloadType) -> None:
    alice, bob = established()
    message = _with_payload(alice, kind, bytes(PQ_PAYLOAD_LENGTHS[kind]))
    refuse(bob, message, AuthenticationError)


def test_a_proposal_is_attached_and_answered() -> None:
    alice, bob = established()
    alice = alice._replace(pq=pq_turns.ask_for_healing(alice.pq))
    alice, (offer,) = encrypted(alice)
    assert offer.header.pq_type == PqPayloadType.ENCAPSULATION_KEY
    bob, (answer,) = encrypted(ratchet_steps.decrypt(bob, AD, offer, ARRIVAL).state)
    assert answer.header.pq_type == PqPayloadType.CIPHERTEXT
    alice, (first_of_the_epoch,) = encrypted(ratchet_steps.decrypt(alice, AD, answer, ARRIVAL).state)
    assert first_of_the_epoch.header.pq_epoch == 1
    bob = ratchet_steps.decrypt(bob, AD, first_of_the_epoch, ARRIVAL).state
    assert (alice.pq.epoch, bob.pq.epoch) == (2, 2)
    assert alice.pq.root_key == bob.pq.root_key


def test_a_chain_is_closed_at_the_count_of_messages_before_the_one_that_closes_it() -> None:
    alice, bob = established()
    alice = alice._replace(pq=pq_turns.ask_for_healing(alice.pq))
    alice, (offer,) = encrypted(alice)
    bob, (answer,) = encrypted(ratchet_steps.decrypt(bob, AD, offer, ARRIVAL).state)
    _, (first_of_the_epoch,) = encrypted(ratchet_steps.decrypt(alice, AD, answer, ARRIVAL).state)
    (closed,) = ratchet_steps.decrypt(bob, AD, first_of_the_epoch, ARRIVAL).state.pq.closed
    assert closed.closed_receives == bob.receives == 2


def test_a_header_whose_post_quantum_half_is_used_up_is_no_duplicate() -> None:
    """Only the Double Ratchet names duplicates: a duplicate is acknowledged silently, and a forgery must not be."""
    alice, bob = established()
    alice, (first, second) = encrypted(alice, 2)
    bob = ratchet_steps.decrypt(bob, AD, first, ARRIVAL).state
    refuse(bob, first, DuplicateMessageError)
    crossed = second._replace(fields=second.header._replace(pq_index=first.header.pq_index))
    refuse(bob, crossed, AuthenticationError)


def test_the_skip_limit_holds_for_both_ratchets_apart() -> None:
    alice, bob = established()
    _, (message,) = encrypted(alice)
    header = message.header
    for field in ("chain_index", "pq_index"):
        index = getattr(header, field)
        refuse(bob, message._replace(fields=header._replace(**{field: index + MAX_SKIP})), AuthenticationError)
        refuse(bob, message._replace(fields=header._replace(**{field: index + MAX_SKIP + 1})), TooManySkippedError)


def test_an_unknown_ratchet_key_before_our_next_send_is_refused() -> None:
    alice, _ = established()
    stranger = RatchetPublicKey(PreKeyPair.generate(RNG).public.raw)
    alice_sent, (message,) = encrypted(alice)
    assert alice.double.our_ratchet_key_pair is None
    assert alice_sent.double.our_ratchet_key_pair is not None
    refuse(alice, message._replace(fields=message.header._replace(ratchet_key=stranger)), AuthenticationError)


def test_equal_plaintexts_give_different_ciphertexts() -> None:
    alice, _ = established()
    _, messages = encrypted(alice, 3)
    assert len({message.ciphertext for message in messages}) == 3
    assert len({message.nonce for message in messages}) == 3


def test_a_state_that_is_used_twice_repeats_no_nonce() -> None:
    """What a rolled-back or cloned store does: the same message key comes again, so the nonce must not."""
    alice, _ = established()
    (_, (one,)), (_, (other,)) = encrypted(alice), encrypted(alice)
    assert one.nonce != other.nonce
