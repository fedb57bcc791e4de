"""The post-quantum ratchet in epoch 0: two independent chains beside the Double Ratchet."""

from typing import Final

import pytest

from e2ee.errors import (
    DuplicateMessageError,
    EpochUnknownError,
    KeyEvictedError,
    TooManySkippedError,
    UnsupportedVersionError,
)
from e2ee.limits import MAX_SKIP
from e2ee.private_keys import SharedSecret
from e2ee.ratchet import pq_ratchet
from e2ee.ratchet.pq_ratchet import PqHeader
from e2ee.ratchet.skipped_keys import Evicted, Ratchet, SkippedPosition, nothing_skipped
from e2ee.ratchet.state import PqRatchetState
from e2ee.wire.message import PqPayloadType

SECRET: Final = SharedSecret(b"\x22" * 32)


def ends() -> tuple[PqRatchetState, PqRatchetState]:
    return pq_ratchet.start(SECRET, initiator=True), pq_ratchet.start(SECRET, initiator=False)


def test_each_direction_agrees_and_differs_from_the_other() -> None:
    alice, bob = ends()
    to_bob, to_alice = pq_ratchet.send(alice), pq_ratchet.send(bob)
    assert pq_ratchet.receive(bob, to_bob.header, nothing_skipped).message_key == to_bob.message_key
    assert pq_ratchet.receive(alice, to_alice.header, nothing_skipped).message_key == to_alice.message_key
    assert to_bob.message_key != to_alice.message_key


def test_both_ends_share_root_and_authentication_keys_and_send_in_epoch_zero() -> None:
    alice, bob = ends()
    assert alice.root_key == bob.root_key
    assert alice.authentication_key == bob.authentication_key
    assert alice.root_key.expose() != alice.authentication_key.expose()
    assert pq_ratchet.send(alice).header == PqHeader(0, 0)
    assert alice.epoch == bob.epoch == 1


def test_message_keys_depend_on_the_index_as_well_as_on_the_chain() -> None:
    state, _ = ends()
    keys = set()
    for index in range(10):
        sent = pq_ratchet.send(state)
        assert sent.header.chain_index == index
        state = sent.state
        keys.add(sent.message_key.expose())
    assert len(keys) == 10


def test_skipped_keys_serve_late_messages_once() -> None:
    alice, bob = ends()
    first = pq_ratchet.send(alice)
    second = pq_ratchet.send(first.state)
    received = pq_ratchet.receive(bob, second.header, nothing_skipped)
    assert received.message_key == second.message_key
    skipped = {each.position: each.key for each in received.skipped}
    assert list(skipped) == [SkippedPosition(Ratchet.POST_QUANTUM, bytes(4), 0)]
    late = pq_ratchet.receive(received.state, first.header, skipped.get)
    assert late.message_key == first.message_key
    assert late.used in skipped
    with pytest.raises(DuplicateMessageError):
        pq_ratchet.receive(late.state, first.header, nothing_skipped)
    with pytest.raises(KeyEvictedError):
        pq_ratchet.receive(late.state, first.header, lambda _: Evicted.EVICTED)


def test_the_skip_limit_is_exact_and_refusal_changes_nothing() -> None:
    _, bob = ends()
    before = bob
    assert len(pq_ratchet.receive(bob, PqHeader(0, MAX_SKIP), nothing_skipped).skipped) == MAX_SKIP
    with pytest.raises(TooManySkippedError) as caught:
        pq_ratchet.receive(bob, PqHeader(0, MAX_SKIP + 1), nothing_skipped)
    assert (caught.value.gap, caught.value.limit) == (MAX_SKIP + 1, MAX_SKIP)
    assert bob == before


@pytest.mark.parametrize("epoch", [1, 2, 0xFFFFFFFF])
def test_an_epoch_that_was_not_reached_is_refused(epoch: int) -> None:
    _, bob = ends()
    with pytest.raises(EpochUnknownError) as caught:
        pq_ratchet.receive(bob, PqHeader(epoch, 0), nothing_skipped)
    assert caught.value.epoch == epoch


@pytest.mark.parametrize("payload", [each for each in PqPayloadType if each is not PqPayloadType.NONE])
def test_a_payload_is_refused_by_this_release(payload: PqPayloadType) -> None:
    with pytest.raises(UnsupportedVersionError):
        pq_ratchet.judge_payload(payload)
    pq_ratchet.judge_payload(PqPayloadType.NONE)
