"""The post-quantum ratchet's chains: which key a message gets, which chains are kept."""

from typing import Final

import pytest

from e2ee.errors import DuplicateMessageError, EpochUnknownError, KeyEvictedError, TooManySkippedError
from e2ee.limits import CLOSED_EPOCH_LIFETIME_MS, CLOSED_EPOCH_RECEIVES, MAX_CLOSED_EPOCHS, MAX_SKIP
from e2ee.private_keys import SharedSecret
from e2ee.ratchet import pq_ratchet
from e2ee.ratchet.pq_ratchet import PqHeader
from e2ee.ratchet.skipped_keys import Evicted, Ratchet, SkippedPosition, nothing_skipped
from e2ee.ratchet.state import ClosedPqChain, PqChainKey, PqRatchetState, PqReceivingChain
from tests.ratchet_steps import pq_receive, pq_send
from tests.wire_objects import NOW

SECRET: Final = SharedSecret(b"\x22" * 32)


def ends() -> tuple[PqRatchetState, PqRatchetState]:
    return pq_ratchet.start(SECRET, initiator=True, now=NOW), pq_ratchet.start(SECRET, initiator=False, now=NOW)


def test_each_direction_agrees_and_differs_from_the_other() -> None:
    alice, bob = ends()
    to_bob, to_alice = pq_send(alice), pq_send(bob)
    assert pq_receive(bob, to_bob.header, nothing_skipped).message_key == to_bob.message_key
    assert pq_receive(alice, to_alice.header, nothing_skipped).message_key == to_alice.message_key
    assert to_bob.message_key != to_alice.message_key


def test_both_ends_share_root_and_authentication_keys_and_send_in_epoch_zero() -> None:
    alice, bob = ends()
    assert alice.root_key == bob.root_key
    assert alice.authentication_key == bob.authentication_key
    assert alice.root_key.expose() != alice.authentication_key.expose()
    assert pq_send(alice).header == PqHeader(0, 0)
    assert alice.epoch == bob.epoch == 1


def test_message_keys_depend_on_the_index_as_well_as_on_the_chain() -> None:
    state, _ = ends()
    keys = set()
    for index in range(10):
        sent = pq_send(state)
        assert sent.header.pq_index == index
        state = sent.state
        keys.add(sent.message_key)
    assert len(keys) == 10


def test_skipped_keys_serve_late_messages_once() -> None:
    alice, bob = ends()
    first = pq_send(alice)
    second = pq_send(first.state)
    received = pq_receive(bob, second.header, nothing_skipped)
    assert received.message_key == second.message_key
    skipped = {each.position: each.key for each in received.skipped}
    assert list(skipped) == [SkippedPosition(Ratchet.POST_QUANTUM, bytes(4), 0)]
    late = pq_receive(received.state, first.header, skipped.get)
    assert late.message_key == first.message_key
    assert late.used in skipped
    with pytest.raises(DuplicateMessageError):
        pq_receive(late.state, first.header, nothing_skipped)
    with pytest.raises(KeyEvictedError):
        pq_receive(late.state, first.header, lambda _: Evicted.EVICTED)


def test_the_skip_limit_is_exact_and_refusal_changes_nothing() -> None:
    _, bob = ends()
    before = bob
    assert len(pq_receive(bob, PqHeader(0, MAX_SKIP), nothing_skipped).skipped) == MAX_SKIP
    with pytest.raises(TooManySkippedError) as caught:
        pq_receive(bob, PqHeader(0, MAX_SKIP + 1), nothing_skipped)
    assert (caught.value.gap, caught.value.limit) == (MAX_SKIP + 1, MAX_SKIP)
    assert bob == before


@pytest.mark.parametrize("epoch", [1, 2, 0xFFFFFFFF])
def test_an_epoch_that_was_not_reached_is_refused(epoch: int) -> None:
    _, bob = ends()
    with pytest.raises(EpochUnknownError) as caught:
        pq_receive(bob, PqHeader(epoch, 0), nothing_skipped)
    assert caught.value.epoch == epoch


def chain(epoch: int) -> PqReceivingChain:
    return PqReceivingChain(epoch, PqChainKey(bytes([epoch]) * 32), 0)


def at_epoch(newest: int, *closed: ClosedPqChain) -> PqRatchetState:
    """Return an end that received in `newest` last."""
    return ends()[1]._replace(epoch=newest + 1, receiving=(chain(newest),), closed=closed)


def test_a_message_of_the_next_epoch_closes_the_chain_before_it() -> None:
    state = at_epoch(3)._replace(receiving=(chain(3), chain(4)))
    assert pq_ratchet.close_chains(state, 3, NOW, 7) is state
    closed = pq_ratchet.close_chains(state, 4, NOW, 7)
    assert closed.receiving == (chain(4),)
    assert closed.closed == (ClosedPqChain(chain(3), NOW, 7),)


def test_a_late_message_of_a_closed_epoch_is_read_and_advances_its_chain() -> None:
    state = at_epoch(4, ClosedPqChain(chain(3), NOW, 7))
    received = pq_receive(state, PqHeader(3, 2), nothing_skipped)
    assert len(received.skipped) == 2
    assert received.state.receiving == state.receiving
    (closed,) = received.state.closed
    assert (closed.chain.epoch, closed.chain.next_index, closed.closed_at) == (3, 3, NOW)


def test_a_message_advances_the_chain_of_its_epoch_and_no_other() -> None:
    older, newer = ClosedPqChain(chain(2), NOW, 5), ClosedPqChain(chain(3), NOW, 7)
    state = at_epoch(4, older, newer)._replace(receiving=(chain(4), chain(5)))

    of_receiving = pq_receive(state, PqHeader(5, 0), nothing_skipped).state
    assert (of_receiving.receiving[0], of_receiving.closed) == (chain(4), state.closed)
    assert (of_receiving.receiving[1].epoch, of_receiving.receiving[1].next_index) == (5, 1)
    of_older = pq_receive(state, PqHeader(4, 0), nothing_skipped).state
    assert (of_older.receiving[1], of_older.closed) == (chain(5), state.closed)
    assert (of_older.receiving[0].epoch, of_older.receiving[0].next_index) == (4, 1)
    of_closed = pq_receive(state, PqHeader(3, 0), nothing_skipped).state
    assert (of_closed.receiving, of_closed.closed[0]) == (state.receiving, older)
    assert (of_closed.closed[1].chain.epoch, of_closed.closed[1].chain.next_index) == (3, 1)
    for advanced in (of_receiving, of_older, of_closed):
        assert advanced.received == state.received + 1


def test_at_most_64_closed_epochs_are_kept_and_the_oldest_goes() -> None:
    closed = tuple(ClosedPqChain(chain(each), NOW, 0) for each in range(MAX_CLOSED_EPOCHS))
    state = at_epoch(64, *closed)._replace(receiving=(chain(64), chain(65)))
    kept = [each.chain.epoch for each in pq_ratchet.close_chains(state, 65, NOW, 1).closed]
    assert kept == list(range(1, 65))


def test_a_closed_chain_goes_2000_receives_later_when_the_next_one_closes() -> None:
    state = at_epoch(4, ClosedPqChain(chain(3), NOW, 10))._replace(receiving=(chain(4), chain(5)))
    for receives, kept in ((10 + CLOSED_EPOCH_RECEIVES, [3, 4]), (11 + CLOSED_EPOCH_RECEIVES, [4])):
        closed = pq_ratchet.close_chains(state, 5, NOW, receives).closed
        assert [each.chain.epoch for each in closed] == kept


def test_a_closed_chain_goes_after_7_days() -> None:
    state = at_epoch(4, ClosedPqChain(chain(3), NOW, 10))
    assert pq_ratchet.forget_closed(state, NOW + CLOSED_EPOCH_LIFETIME_MS) is state
    assert pq_ratchet.forget_closed(state, NOW + CLOSED_EPOCH_LIFETIME_MS + 1).closed == ()


def test_of_a_chain_that_is_gone_only_skipped_keys_are_left() -> None:
    state, header = at_epoch(4), PqHeader(2, 5)
    position = SkippedPosition(Ratchet.POST_QUANTUM, (2).to_bytes(4, "big"), 5)
    received = pq_receive(state, header, {position: b"k" * 32}.get)
    assert (received.message_key, received.used) == (b"k" * 32, position)
    assert received.state == state._replace(received=1)
    for find in (nothing_skipped, lambda _: Evicted.EVICTED):
        with pytest.raises(KeyEvictedError):
            pq_receive(state, header, find)


def test_the_states_after_a_step_show_no_key() -> None:
    alice, bob = ends()
    sent = pq_send(alice)
    received = pq_receive(bob, sent.header, nothing_skipped)
    for shown in (repr(sent.state), repr(received.state), repr(received.gaps)):
        assert sent.message_key.hex() not in shown
        assert repr(sent.message_key) not in shown
        assert repr(sent.state.sending.key) not in shown
