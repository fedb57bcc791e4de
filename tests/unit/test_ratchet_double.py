"""The Double Ratchet alone: message keys and headers, without AEAD and without storage."""

from typing import Final

import pytest

from e2ee.errors import (
    AuthenticationError,
    DuplicateMessageError,
    InvalidPublicKeyError,
    KeyEvictedError,
    TooManySkippedError,
)
from e2ee.limits import MAX_CLOSED_RATCHET_KEYS, MAX_SKIP
from e2ee.primitives.rng import Rng
from e2ee.private_keys import PreKeyPair, RootKey
from e2ee.ratchet import chains, double_ratchet
from e2ee.ratchet.double_ratchet import DoubleRatchetHeader
from e2ee.ratchet.skipped_keys import Evicted, SkippedPosition, nothing_skipped
from e2ee.ratchet.state import DoubleRatchetState
from e2ee.wire.public_keys import RatchetPublicKey
from tests import ratchet_steps
from tests.wire_objects import seeded_rng

ROOT: Final = RootKey(b"\x11" * 32)


class End:
    """One end of a ratchet and the map of skipped keys that its caller would keep."""

    def __init__(self, state: DoubleRatchetState, rng: Rng) -> None:
        self.state, self.rng = state, rng
        self.skipped: dict[SkippedPosition, bytes | Evicted] = {}

    def send(self) -> tuple[DoubleRatchetHeader, bytes]:
        sending = ratchet_steps.send(self.state, self.rng)
        self.state = sending.state
        return sending.header, sending.message_key

    def peek(self, header: DoubleRatchetHeader, max_skip: int = MAX_SKIP) -> ratchet_steps.Received[DoubleRatchetState]:
        return ratchet_steps.receive(self.state, header, self.skipped.get, max_skip)

    def receive(self, header: DoubleRatchetHeader, max_skip: int = MAX_SKIP) -> bytes:
        received = self.peek(header, max_skip)
        self.state = received.state
        self.skipped |= {each.position: each.key for each in received.skipped}
        if received.used is not None:
            del self.skipped[received.used]
        return received.message_key


def ends() -> tuple[End, End]:
    """Return initiator and responder."""
    rng = seeded_rng("double ratchet")
    prekey = PreKeyPair.generate(rng)
    return (
        End(double_ratchet.start_as_initiator(ROOT, prekey.public), rng),
        End(double_ratchet.start_as_responder(ROOT, prekey), rng),
    )


def pass_on(sender: End, recipient: End) -> None:
    header, key = sender.send()
    assert recipient.receive(header) == key


def test_headers_count_from_zero_and_name_the_length_of_the_sending_chain_before() -> None:
    alice, bob = ends()
    first, _ = alice.send()
    second, _ = alice.send()
    bob.receive(first)
    reply, _ = bob.send()
    alice.receive(reply)
    third, _ = alice.send()
    numbers = [(each.previous_chain_length, each.chain_index) for each in (first, second, reply, third)]
    assert numbers == [(0, 0), (0, 1), (0, 0), (2, 0)]


def test_a_turn_with_gaps_in_both_chains_keeps_the_keys_of_both() -> None:
    alice, bob = ends()
    pass_on(alice, bob)
    late = [alice.send()]
    pass_on(bob, alice)
    late.append(alice.send())
    pass_on(alice, bob)
    assert len(bob.skipped) == 2
    for header, key in late:
        assert bob.receive(header) == key


def test_a_chain_is_known_while_it_is_open_and_after_it_was_closed_and_no_other_is() -> None:
    alice, bob = ends()
    pass_on(alice, bob)
    first, _ = alice.send()
    assert double_ratchet.knows(bob.state, first, nothing_skipped)
    pass_on(bob, alice)
    second, _ = alice.send()
    assert not double_ratchet.knows(bob.state, second, nothing_skipped)
    bob.receive(second)
    assert double_ratchet.knows(bob.state, second, nothing_skipped)
    assert double_ratchet.knows(bob.state, first, nothing_skipped)


def test_ping_pong_agrees_on_every_key_and_turns_the_ratchet_each_time() -> None:
    alice, bob = ends()
    ratchet_keys = set()
    for _ in range(10):
        for sender, recipient in ((alice, bob), (bob, alice)):
            header, key = sender.send()
            assert recipient.receive(header) == key
            ratchet_keys.add(header.ratchet_key)
    assert len(ratchet_keys) == 20
    assert not alice.skipped
    assert not bob.skipped


def test_a_stream_stays_on_one_ratchet_key_and_never_repeats_a_message_key() -> None:
    alice, bob = ends()
    sent = [alice.send() for _ in range(20)]
    assert {header.ratchet_key for header, _ in sent} == {sent[0][0].ratchet_key}
    assert [header.chain_index for header, _ in sent] == list(range(20))
    assert len({key for _, key in sent}) == 20
    assert [bob.receive(header) for header, _ in sent] == [key for _, key in sent]


def test_messages_of_one_chain_arrive_in_any_order() -> None:
    alice, bob = ends()
    sent = [alice.send() for _ in range(6)]
    for at in (5, 0, 3, 1, 4, 2):
        header, key = sent[at]
        assert bob.receive(header) == key
    assert not bob.skipped


def test_messages_of_several_earlier_chains_arrive_after_later_ones() -> None:
    alice, bob = ends()
    late = []
    for _ in range(4):
        pass_on(alice, bob)
        late += [alice.send() for _ in range(3)]
        pass_on(bob, alice)
    pass_on(alice, bob)
    assert len(bob.skipped) == len(late)
    for header, key in reversed(late):
        assert bob.receive(header) == key
    assert not bob.skipped


def test_the_previous_chain_length_lets_the_tail_of_a_chain_arrive_late() -> None:
    alice, bob = ends()
    pass_on(alice, bob)
    tail = [alice.send() for _ in range(3)]
    pass_on(bob, alice)
    header, key = alice.send()
    assert header.previous_chain_length == 4
    assert bob.receive(header) == key
    assert len(bob.skipped) == 3
    assert [bob.receive(late) for late, _ in tail] == [late_key for _, late_key in tail]
    assert not bob.skipped


def test_the_previous_chain_length_counts_the_last_chain_alone() -> None:
    alice, bob = ends()
    for length in (1, 3, 2):
        for _ in range(length):
            pass_on(alice, bob)
        pass_on(bob, alice)
        assert ratchet_steps.send(alice.state, alice.rng).header.previous_chain_length == length


@pytest.mark.parametrize("limit", [0, 5, MAX_SKIP])
def test_exactly_as_many_keys_as_allowed_may_be_skipped_in_a_chain(limit: int) -> None:
    alice, bob = ends()
    pass_on(alice, bob)
    for _ in range(limit):
        alice.send()
    header, key = alice.send()
    assert bob.receive(header, limit) == key
    assert len(bob.skipped) == limit


@pytest.mark.parametrize("limit", [0, 5, MAX_SKIP])
def test_one_more_than_allowed_is_refused_and_changes_nothing(limit: int) -> None:
    alice, bob = ends()
    pass_on(alice, bob)
    for _ in range(limit + 1):
        alice.send()
    before = bob.state
    with pytest.raises(TooManySkippedError) as caught:
        bob.peek(alice.send()[0], limit)
    assert (caught.value.gap, caught.value.limit) == (limit + 1, limit)
    assert bob.state == before


def test_the_limit_holds_for_the_old_chain_too() -> None:
    alice, bob = ends()
    pass_on(alice, bob)
    pass_on(bob, alice)
    header, _ = alice.send()
    bob_before = bob.state
    assert header.previous_chain_length == 1
    assert len(bob.peek(header._replace(previous_chain_length=1 + MAX_SKIP)).skipped) == MAX_SKIP
    with pytest.raises(TooManySkippedError):
        bob.peek(header._replace(previous_chain_length=2 + MAX_SKIP))
    assert bob.state == bob_before


def test_too_large_a_gap_is_refused_before_any_key_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = ends()
    pass_on(alice, bob)
    header = alice.send()[0]._replace(chain_index=0xFFFFFFFF)

    def refuse(*_: object) -> tuple[bytes, bytes]:
        raise AssertionError("a chain step was computed")

    monkeypatch.setattr(chains, "kdf_pair", refuse)
    with pytest.raises(TooManySkippedError):
        bob.peek(header)


def test_a_repeated_header_is_named_a_duplicate_in_current_and_closed_chains() -> None:
    alice, bob = ends()
    first, _ = alice.send()
    bob.receive(first)
    with pytest.raises(DuplicateMessageError):
        bob.peek(first)
    pass_on(bob, alice)
    pass_on(alice, bob)
    with pytest.raises(DuplicateMessageError):
        bob.peek(first)


def test_a_skipped_key_works_once() -> None:
    alice, bob = ends()
    (late, key), (header, _) = alice.send(), alice.send()
    bob.receive(header)
    assert bob.receive(late) == key
    with pytest.raises(DuplicateMessageError):
        bob.peek(late)


def test_an_evicted_key_is_told_from_a_duplicate() -> None:
    alice, bob = ends()
    (late, _), (header, _) = alice.send(), alice.send()
    bob.receive(header)
    bob.skipped = dict.fromkeys(bob.skipped, Evicted.EVICTED)
    with pytest.raises(KeyEvictedError):
        bob.peek(late)


def test_the_last_closed_chains_are_remembered_and_no_more() -> None:
    alice, bob = ends()
    headers = []
    for _ in range(MAX_CLOSED_RATCHET_KEYS + 2):
        header, _ = alice.send()
        bob.receive(header)
        headers.append(header)
        pass_on(bob, alice)
    assert len(bob.state.closed_ratchet_keys) == MAX_CLOSED_RATCHET_KEYS
    with pytest.raises(DuplicateMessageError):
        bob.peek(headers[1])
    # Older than that, a repetition looks like a new chain: its key is then wrong, and the message fails.
    assert bob.peek(headers[0]).message_key != bytes(32)


def test_a_skipped_key_opens_its_message_even_when_its_chain_is_forgotten() -> None:
    alice, bob = ends()
    (late, key), (header, _) = alice.send(), alice.send()
    bob.receive(header)
    for _ in range(MAX_CLOSED_RATCHET_KEYS + 2):
        pass_on(bob, alice)
        pass_on(alice, bob)
    assert late.ratchet_key.raw not in bob.state.closed_ratchet_keys
    assert double_ratchet.knows(bob.state, late, bob.skipped.get)
    assert bob.receive(late) == key


def test_an_unknown_ratchet_key_before_our_next_send_is_refused_without_a_diffie_hellman(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alice, bob = ends()
    pass_on(alice, bob)
    stranger = RatchetPublicKey(PreKeyPair.generate(seeded_rng("stranger")).public.raw)

    def refuse(*_: object) -> object:
        raise AssertionError("a Diffie-Hellman was computed")

    monkeypatch.setattr(double_ratchet, "diffie_hellman", refuse)
    before = bob.state
    with pytest.raises(AuthenticationError):
        bob.peek(DoubleRatchetHeader(stranger, 0, 0))
    assert bob.state == before


def test_the_old_ratchet_private_key_is_gone_after_a_receive_and_the_new_one_comes_with_the_send() -> None:
    alice, bob = ends()
    prekey = bob.state.our_ratchet_key_pair
    pass_on(alice, bob)
    assert prekey is not None
    assert bob.state.our_ratchet_key_pair is None
    assert bob.state.sending is None
    bob.send()
    assert bob.state.our_ratchet_key_pair is not None
    assert bob.state.our_ratchet_key_pair != prekey


def test_a_low_order_ratchet_key_is_refused_and_changes_nothing() -> None:
    _, bob = ends()
    before = bob.state
    with pytest.raises(InvalidPublicKeyError):
        bob.peek(DoubleRatchetHeader(RatchetPublicKey(bytes(32)), 0, 0))
    assert bob.state == before


def test_a_responder_cannot_send_before_it_received() -> None:
    _, bob = ends()
    with pytest.raises(ValueError, match="receives before it sends"):
        bob.send()


def test_a_receive_step_alone_changes_nothing() -> None:
    """The caller commits a state only after the message authenticated; until then the old value still serves."""
    alice, bob = ends()
    before = bob.state
    headers = [alice.send() for _ in range(3)]
    bob.peek(headers[2][0])
    assert bob.state is before
    assert [bob.receive(header) for header, _ in headers] == [key for _, key in headers]


def test_ends_with_different_root_keys_agree_on_no_message_key() -> None:
    alice, bob = ends()
    bob.state = bob.state._replace(root_key=RootKey(b"\x12" * 32))
    header, key = alice.send()
    assert bob.receive(header) != key


def test_nothing_skipped_finds_nothing() -> None:
    alice, bob = ends()
    header, key = alice.send()
    assert ratchet_steps.receive(bob.state, header, nothing_skipped).message_key == key
