"""How both ends agree on post-quantum epochs: every transition, every refusal, when payloads are attached."""

from typing import Final

import pytest

from e2ee.errors import AuthenticationError
from e2ee.limits import (
    PQ_ATTACH_AGE_MS,
    PQ_PROPOSAL_AGE_MS,
    PQ_PROPOSAL_MESSAGES,
    PQ_STALLED_RECEIVED,
    PQ_STALLED_SENT,
)
from e2ee.primitives.kdf import mac
from e2ee.private_keys import RatchetKemSeed, SharedSecret, encapsulate_in_ratchet
from e2ee.ratchet import pq_ratchet, pq_turns
from e2ee.ratchet.pq_ratchet import PqHeader
from e2ee.ratchet.state import Answering, Offering, PqPhase, PqRatchetState, ProposeIdle, Waiting
from e2ee.wire.message import PqPayloadType
from tests import ratchet_steps
from tests.wire_objects import NOW, seeded_rng

NONE, EK, CT, REQUEST = PqPayloadType
RNG: Final = seeded_rng("turns")

Sent = tuple[int, int, bytes]
"""Epoch, payload type and payload of a message."""


class End:
    """One end whose messages all authenticate."""

    def __init__(self, *, initiator: bool) -> None:
        self.state = pq_ratchet.start(SharedSecret(b"\x22" * 32), initiator=initiator, now=NOW)
        self.now = NOW

    @property
    def phase(self) -> PqPhase:
        return self.state.turn.phase

    def send(self) -> Sent:
        before, kind, payload = pq_turns.before_sending(self.state, self.now, RNG)
        self.state = ratchet_steps.pq_send(before).state
        return before.epoch - 1, kind, payload

    def receive(self, sent: Sent) -> None:
        epoch, kind, payload = sent
        counted = self.state._replace(received=self.state.received + 1)
        header = PqHeader(epoch, 0, kind, payload)
        self.state = pq_turns.after_authentication(counted, header, self.now, 0, encapsulate_in_ratchet)

    def refuse(self, sent: Sent) -> None:
        before = self.state
        with pytest.raises(AuthenticationError):
            self.receive(sent)
        assert self.state == before

    def heal(self) -> None:
        self.state = pq_turns.ask_for_healing(self.state)


def ends() -> tuple[End, End]:
    return End(initiator=True), End(initiator=False)


def due() -> tuple[End, End]:
    """Return both ends a day later: the initiator's next message proposes."""
    alice, bob = ends()
    alice.now = bob.now = NOW + PQ_PROPOSAL_AGE_MS
    return alice, bob


def agree(proposer: End, answerer: End) -> None:
    """Complete one epoch."""
    answerer.receive(proposer.send())
    proposer.receive(answerer.send())
    answerer.receive(proposer.send())


def same_keys(one: End, other: End) -> bool:
    """Whether both ends hold the same epoch and send to each other on the chains that the other receives on."""
    newest = one.state.receiving[-1], other.state.receiving[-1]
    return (
        one.state.epoch == other.state.epoch
        and one.state.root_key == other.state.root_key
        and one.state.authentication_key == other.state.authentication_key
        and one.state.sending.key != other.state.sending.key
        and {each.epoch for each in newest} == {one.state.epoch - 1}
    )


def test_an_epoch_runs_from_proposal_to_the_first_message_of_the_new_epoch_and_turns_swap() -> None:
    alice, bob = due()
    offer = alice.send()
    assert offer[:2] == (0, EK)
    assert isinstance(alice.phase, Offering)
    bob.receive(offer)
    assert isinstance(bob.phase, Answering)
    answer = bob.send()
    assert answer[:2] == (0, CT), "the answer still goes in the old epoch"
    alice.receive(answer)
    assert isinstance(alice.phase, Waiting)
    first = alice.send()
    assert first == (1, NONE, b"")
    bob.receive(first)
    assert isinstance(bob.phase, ProposeIdle)
    assert same_keys(alice, bob)


def test_ten_epochs_agree_and_each_has_other_keys() -> None:
    pair = due()
    seen = {pair[0].state.root_key.expose(), pair[0].state.authentication_key.expose()}
    for number in range(10):
        proposer, answerer = pair[number % 2], pair[1 - number % 2]
        for end in pair:
            end.now += PQ_PROPOSAL_AGE_MS
        agree(proposer, answerer)
        assert same_keys(proposer, answerer)
        seen |= {proposer.state.root_key.expose(), proposer.state.authentication_key.expose()}
    assert len(seen) == 2 * 11


def test_every_phase_counts_from_zero_and_knows_when_it_was_entered() -> None:
    alice, bob = ends()
    for _ in range(3):
        exchange(alice, bob)

    def entered(end: End, *, sent: int) -> bool:
        state = end.state
        return (state.sent, state.received, state.turn.entered_at) == (sent, 0, end.now)

    alice.now += PQ_PROPOSAL_AGE_MS
    offer = alice.send()
    assert entered(alice, sent=1)
    bob.now += 1
    bob.receive(offer)
    assert entered(bob, sent=0)
    alice.now += 2
    alice.receive(bob.send())
    assert entered(alice, sent=0)
    bob.now += 3
    bob.receive(alice.send())
    assert entered(bob, sent=0)
    assert bob.state.closed[-1].closed_at == bob.now


def test_a_proposal_is_due_after_50_messages_sent_and_received() -> None:
    alice, bob = ends()
    for _ in range(PQ_PROPOSAL_MESSAGES // 2):
        bob.receive(alice.send())
        alice.receive(bob.send())
    assert isinstance(alice.phase, ProposeIdle)
    assert alice.send()[1] == EK


@pytest.mark.parametrize("milliseconds", [0, -1])
def test_a_proposal_is_due_after_a_day(milliseconds: int) -> None:
    alice, _ = due()
    alice.now += milliseconds
    assert (alice.send()[1] == EK) is (milliseconds == 0)


@pytest.mark.parametrize("phase", ["offering", "answering"])
def test_a_payload_is_attached_at_the_counts_of_the_document(phase: str) -> None:
    alice, bob = due()
    first = alice.send()
    bob.receive(first)
    end, attached = (alice, [1]) if phase == "offering" else (bob, [])
    start = len(attached) + 1
    attached += [count for count in range(start, 1000) if end.send()[1] != NONE]
    assert attached == [1, 8, 16, 32, 64, 128, 256, 512, 768]


def test_a_payload_is_attached_again_after_an_hour() -> None:
    alice, _ = due()
    assert alice.send()[1] == EK
    alice.now += PQ_ATTACH_AGE_MS - 1
    assert alice.send()[1] == NONE
    alice.now += 1
    assert alice.send()[1] == EK
    assert alice.send()[1] == NONE


def test_the_same_proposal_again_makes_the_next_message_carry_the_answer() -> None:
    alice, bob = due()
    offer = alice.send()
    bob.receive(offer)
    assert [bob.send()[1] for _ in range(2)] == [CT, NONE]
    bob.receive(offer)
    assert [bob.send()[1] for _ in range(2)] == [CT, NONE]


def test_late_payloads_of_a_finished_epoch_are_ignored() -> None:
    alice, bob = due()
    offer = alice.send()
    bob.receive(offer)
    answer = bob.send()
    alice.receive(answer)
    bob.receive(alice.send())
    for end, late in ((bob, offer), (alice, answer), (alice, (0, REQUEST, b""))):
        before = end.state
        end.receive(late)
        assert end.state == before._replace(received=before.received + 1)


def in_phase(phase: str) -> tuple[End, End]:
    """Return an end in a phase of epoch 1, and its peer."""
    alice, bob = due()
    match phase:
        case "waiting":
            return bob, alice
        case "offering":
            alice.send()
        case "answering":
            bob.receive(alice.send())
            return bob, alice
        case _:
            pass
    return alice, bob


@pytest.mark.parametrize("kind", [EK, CT, REQUEST])
@pytest.mark.parametrize("phase", ["propose-idle", "offering", "waiting", "answering"])
def test_a_payload_that_has_no_place_in_a_phase_is_refused(phase: str, kind: PqPayloadType) -> None:
    end, _ = in_phase(phase)
    length = {EK: 1216, CT: 1120, REQUEST: 0}[kind]
    if kind is REQUEST and phase in ("offering", "propose-idle"):
        end.receive((0, kind, b""))
        assert end.state.turn.asked
    else:
        # Where the type is honest, zeros are no right mac, and not the proposal that is being answered.
        end.refuse((0, kind, bytes(length)))


@pytest.mark.parametrize("at", [0, 600, 1183, 1184, 1215])
def test_a_changed_proposal_is_refused(at: int) -> None:
    alice, bob = due()
    epoch, kind, payload = alice.send()
    bob.refuse((epoch, kind, payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]))
    bob.receive((epoch, kind, payload))


@pytest.mark.parametrize("at", [0, 600, 1087, 1088, 1119])
def test_a_changed_answer_is_refused_and_the_right_one_still_taken(at: int) -> None:
    alice, bob = due()
    bob.receive(alice.send())
    epoch, kind, payload = bob.send()
    alice.refuse((epoch, kind, payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]))
    alice.receive((epoch, kind, payload))


def proposal(state: PqRatchetState, ek: bytes, epoch: int = 1) -> bytes:
    """Return ek under its mac, as whoever knows the authentication key can make it."""
    return ek + mac(state.authentication_key.expose(), b"E2EE/1 PQ ek", epoch.to_bytes(4, "big") + ek)


def test_a_proposal_for_another_epoch_is_refused_although_its_key_is_right() -> None:
    _, bob = due()
    bob.refuse((0, EK, proposal(bob.state, RatchetKemSeed.generate(RNG).encapsulation_key().raw, epoch=2)))


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_payload_under_an_epoch_that_is_not_agreed_yet_is_refused(epoch: int) -> None:
    alice, _ = due()
    alice.refuse((epoch, REQUEST, b""))
    alice.receive((0, REQUEST, b""))


def test_an_encapsulation_key_out_of_range_is_refused_although_its_mac_is_right() -> None:
    _, bob = due()
    bob.refuse((0, EK, proposal(bob.state, b"\xff" * 1184)))


def test_a_second_proposal_for_the_epoch_that_is_being_answered_is_refused() -> None:
    alice, bob = due()
    authentic = bob.state
    bob.receive(alice.send())
    bob.refuse((0, EK, proposal(authentic, RatchetKemSeed.generate(RNG).encapsulation_key().raw)))


def test_a_message_of_the_new_epoch_with_a_bad_payload_takes_no_step_at_all() -> None:
    """The transition by the header and the payload stand or fall together."""
    alice, bob = due()
    bob.receive(alice.send())
    alice.receive(bob.send())
    bob.refuse((1, CT, bytes(1120)))
    assert isinstance(bob.phase, Answering)


def test_the_seed_is_gone_once_the_epoch_is_agreed_and_the_old_sending_chain_too() -> None:
    alice, bob = due()
    bob.receive(alice.send())
    assert isinstance(alice.phase, Offering)
    old = alice.state.sending
    alice.receive(bob.send())
    assert "Seed" not in repr(alice.state)
    assert alice.state.sending.next_index == 0
    assert alice.state.sending.key != old.key


# --- healing on demand ---------------------------------------------------------------------------------------


def exchange(one: End, other: End) -> list[int]:
    """Let both ends send once; return the payload types."""
    first = one.send()
    other.receive(first)
    second = other.send()
    one.receive(second)
    return [first[1], second[1]]


@pytest.mark.parametrize("asking", ["both", "proposer", "waiting"])
def test_healing_completes_an_epoch_and_then_ends(asking: str) -> None:
    alice, bob = ends()
    for end, name in ((alice, "proposer"), (bob, "waiting")):
        if asking in ("both", name):
            end.heal()
    for _ in range(4):
        exchange(alice, bob)
    assert alice.state.epoch == bob.state.epoch == 2
    assert not alice.state.turn.healing
    assert not bob.state.turn.healing


def test_healing_is_still_to_come_only_while_it_was_asked_for_and_the_turn_is_ours() -> None:
    alice, bob = ends()
    assert not pq_turns.is_to_heal(alice.state)
    for end, is_ours in ((alice, True), (bob, False)):
        end.state = pq_turns.ask_for_healing(end.state)
        assert pq_turns.is_to_heal(end.state) is is_ours


def test_what_was_contributed_before_the_call_does_not_count_as_healing() -> None:
    alice, bob = due()
    bob.receive(alice.send())  # alice's seed and bob's encapsulation may both have leaked
    alice.heal()
    bob.heal()
    agree(alice, bob)
    assert alice.state.epoch == 2
    assert alice.state.turn.healing
    assert bob.state.turn.healing
    for _ in range(3):
        exchange(alice, bob)
    assert alice.state.epoch == 3
    assert not alice.state.turn.healing
    assert not bob.state.turn.healing


def test_a_second_call_means_that_the_offer_made_after_the_first_may_have_leaked_too() -> None:
    alice, bob = ends()
    alice.heal()
    offer = alice.send()
    alice.heal()
    bob.receive(offer)
    alice.receive(bob.send())
    assert alice.state.epoch == 2
    assert alice.state.turn.healing


def test_a_waiting_side_that_heals_asks_with_every_message_and_the_asked_side_offers_with_every_message() -> None:
    alice, bob = ends()
    bob.heal()
    asked = [bob.send() for _ in range(3)]
    assert asked == [(0, REQUEST, b"")] * 3
    alice.receive(asked[2])
    assert [alice.send()[1] for _ in range(5)] == [EK] * 5


def test_being_asked_ends_with_the_epoch() -> None:
    alice, bob = ends()
    alice.receive((0, REQUEST, b""))
    agree(alice, bob)
    assert not alice.state.turn.asked


# --- an epoch that does not progress -------------------------------------------------------------------------


def test_an_epoch_that_gets_no_further_is_reported_once() -> None:
    alice, bob = due()
    alice.send()
    for number in range(PQ_STALLED_RECEIVED + 100):
        if number < PQ_STALLED_SENT:
            alice.send()
        epoch, _, _ = bob.send()
        alice.receive((epoch, NONE, b""))
        assert alice.state.turn.reported is (number + 1 >= PQ_STALLED_RECEIVED)


def test_an_epoch_in_which_we_sent_little_is_not_reported() -> None:
    alice, bob = due()
    epoch, _, _ = bob.send()
    for _ in range(PQ_STALLED_SENT - 1):
        alice.send()
    for _ in range(PQ_STALLED_RECEIVED):
        alice.receive((epoch, NONE, b""))
    assert not alice.state.turn.reported
    alice.send()
    alice.receive((epoch, NONE, b""))
    assert alice.state.turn.reported


def test_a_peer_that_only_listens_is_not_reported() -> None:
    alice, _ = due()
    for _ in range(2000):
        alice.send()
    assert not alice.state.turn.reported
