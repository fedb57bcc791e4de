"""Attacks on the agreement on post-quantum epochs: by whoever holds a leaked message key, by a network, by the peer.

See docs/attacks.md. What a full leak gives and how it heals is in test_leaked_state.py.
"""

from collections.abc import Callable
from random import Random
from typing import Final

import pytest

from e2ee.errors import AuthenticationError, E2EEError, EpochUnknownError
from e2ee.limits import DAY_MS, HOUR_MS, MAX_CLOSED_EPOCHS, PQ_STALLED_RECEIVED
from e2ee.primitives import aead
from e2ee.primitives.kdf import kdf, mac
from e2ee.private_keys import RatchetKemSeed
from e2ee.ratchet.skipped_keys import Ratchet
from e2ee.ratchet.state import Answering, PqPhase, ProposeIdle, Waiting
from e2ee.wire.message import HeaderFields, PqPayloadType, RatchetMessage, encode_prefix
from tests import ratchet_steps
from tests.ratchet_pair import ASSOCIATED_DATA, End, pair
from tests.wire_objects import seeded_rng

NONE, EK, CT, REQUEST = PqPayloadType
LENGTHS: Final = {NONE: 0, EK: 1216, CT: 1120, REQUEST: 0}
RNG: Final = seeded_rng("attacks on turns")


def seal(header: HeaderFields, pq_key: bytes, double_key: bytes) -> RatchetMessage:
    """Seal 256 bytes under a header, as whoever knows both keys of a message can."""
    keys = kdf(pq_key, b"E2EE/1 message", double_key)
    prefix = encode_prefix(header, keys[32:], bytes(12))
    return RatchetMessage.decode(prefix + aead.seal(keys[:32], bytes(12), bytes(256), ASSOCIATED_DATA + prefix))


def crafted(end: End, epoch: int, kind: int, payload: bytes) -> RatchetMessage:
    """As a hostile peer: the next message, with any payload and any epoch."""
    double, pq = ratchet_steps.send(end.state.double, RNG), ratchet_steps.pq_send(end.state.pq)
    index = end.state.pq.sending.next_index
    end.state = end.state._replace(double=double.state, pq=pq.state)
    return seal((*double.header, epoch, index, kind, payload), pq.message_key, double.message_key)


def refuse(end: End, message: RatchetMessage) -> None:
    state, skipped = end.state, dict(end.skipped)
    with pytest.raises(AuthenticationError):
        end.receive(message)
    assert (end.state, end.skipped) == (state, skipped)


def own_key(authentication_key: bytes, epoch: int) -> bytes:
    ek = RatchetKemSeed.generate(RNG).encapsulation_key().raw
    return ek + mac(authentication_key, b"E2EE/1 PQ ek", epoch.to_bytes(4, "big") + ek)


# --- a leaked message key ------------------------------------------------------------------------------------


def leaked_message_key() -> tuple[End, End, Callable[[int, bytes], RatchetMessage]]:
    """Return two ends, and what forges the overtaken message whose keys leaked, with any payload."""
    alice, bob = pair("leaked message key")
    overtaken = alice.send(b"overtaken").header
    bob.receive(alice.send(b"overtaking"))
    keys = {position.ratchet: key for position, key in bob.skipped.items()}

    def forge(kind: int, payload: bytes) -> RatchetMessage:
        double = overtaken.ratchet_key, overtaken.previous_chain_length, overtaken.chain_index
        header = *double, overtaken.pq_epoch, overtaken.pq_index, kind, payload
        return seal(header, keys[Ratchet.POST_QUANTUM], keys[Ratchet.DOUBLE])

    return alice, bob, forge


def test_a_leaked_message_key_puts_in_no_encapsulation_key() -> None:
    _, bob, forge = leaked_message_key()
    assert bob.phase is Waiting
    refuse(bob, forge(EK, own_key(bytes(32), 1)))
    refuse(bob, forge(EK, own_key(bob.state.pq.root_key.expose(), 1)))
    refuse(bob, forge(CT, bytes(1120)))
    refuse(bob, forge(REQUEST, b""))
    bob.receive(forge(NONE, b""))
    assert bob.phase is Waiting, "the message itself can be forged with its key, and nothing follows from it"


def test_a_leaked_message_key_makes_us_offer_at_worst() -> None:
    """A request has no mac: it moves nobody's keys, it makes an end take its turn."""
    alice, bob = pair("leaked key of the proposer")
    overtaken = bob.send(b"overtaken").header
    alice.receive(bob.send(b"overtaking"))
    keys = {position.ratchet: key for position, key in alice.skipped.items()}
    double = overtaken.ratchet_key, overtaken.previous_chain_length, overtaken.chain_index
    forged = seal((*double, 0, overtaken.pq_index, REQUEST, b""), keys[Ratchet.POST_QUANTUM], keys[Ratchet.DOUBLE])
    alice.receive(forged)
    assert alice.phase is ProposeIdle
    agree(alice, bob)


def agree(proposer: End, answerer: End) -> None:
    """Complete an epoch, and see that both ends hold the same."""
    for sender, recipient in ((proposer, answerer), (answerer, proposer), (proposer, answerer)):
        recipient.receive(sender.send(b"turn"))
    assert proposer.state.pq.root_key == answerer.state.pq.root_key
    assert proposer.state.pq.epoch == answerer.state.pq.epoch


# --- payloads of other epochs and sessions -------------------------------------------------------------------


def turned_after_a_day(seed: str) -> tuple[End, End, dict[int, bytes]]:
    """Return two ends after one epoch, and its payloads by type."""
    alice, bob = pair(seed)
    alice.now += DAY_MS
    bob.now += DAY_MS
    offer = alice.send(b"offer")
    bob.receive(offer)
    answer = bob.send(b"answer")
    alice.receive(answer)
    bob.receive(alice.send(b"of the new epoch"))
    return alice, bob, {EK: offer.header.pq_payload, CT: answer.header.pq_payload}


def test_payloads_of_an_old_epoch_put_into_the_present_one_are_refused() -> None:
    """Even by the peer. In messages of their own epoch they are late repetitions, and nothing follows from them."""
    alice, bob, old = turned_after_a_day("replay")
    assert (alice.phase, bob.phase) == (Waiting, ProposeIdle)
    refuse(alice, crafted(bob, 1, EK, old[EK]))
    bob.now += DAY_MS
    bob.send(b"offers, and it is lost")
    refuse(bob, crafted(alice, 1, CT, old[CT]))
    alice.receive(bob.send(b"goes on"))
    assert bob.receive(alice.send(b"in order")) == b"in order"


def test_a_proposal_of_another_session_is_refused() -> None:
    alice, bob = pair("this session")
    refuse(bob, crafted(alice, 0, EK, own_key(b"\x55" * 32, 1)))  # another session has another key for its macs
    bob.receive(crafted(alice, 0, EK, own_key(bob.state.pq.authentication_key.expose(), 1)))


# --- a network that drops, a peer that lies ------------------------------------------------------------------


def test_dropping_every_payload_blocks_no_message_and_is_noticed() -> None:
    """The network sees in the header which messages carry one."""
    alice, bob = pair("downgrade")
    noticed = 0
    for number in range(2 * PQ_STALLED_RECEIVED):
        for sender, recipient in ((alice, bob), (bob, alice)):
            message = sender.send(b"%d" % number)
            if message.header.pq_type == NONE:
                assert recipient.receive(message) == b"%d" % number
        noticed += alice.state.pq.turn.reported
    assert alice.state.pq.epoch == bob.state.pq.epoch == 1
    assert noticed > 0
    alice.now += HOUR_MS
    bob.receive(alice.send(b"offers again, and the network relents"))
    assert bob.phase is Answering


@pytest.mark.parametrize("seed", range(6))
def test_whatever_a_peer_attaches_is_a_turn_or_refused_and_grows_nothing(seed: int) -> None:
    """Any payload in any phase with any epoch: own keys, zeros, noise, repetitions; over a hundred days."""
    random = Random(seed)
    mallory, bob = pair(seed)
    heard: dict[int, list[bytes]] = {EK: [], CT: []}
    reached: set[type[PqPhase]] = set()
    for _ in range(300):
        for end in (mallory, bob):
            end.now += random.choice([0, HOUR_MS, DAY_MS])
        if random.random() < 0.5:
            sent = bob.send(b"honest")
            _try(mallory, sent)
        else:
            sent = _attack(mallory, random, heard) if random.random() < 0.5 else mallory.send(b"honest for once")
            before = bob.state
            if not _try(bob, sent):
                assert bob.state == before
        if sent.header.pq_payload:
            heard[sent.header.pq_type].append(sent.header.pq_payload)
        reached.add(bob.phase)
        assert len(bob.state.pq.receiving) <= 2
        assert len(bob.state.pq.closed) <= MAX_CLOSED_EPOCHS
    assert len(reached) > 1
    bob.send(b"and bob goes on")


def _attack(mallory: End, random: Random, heard: dict[int, list[bytes]]) -> RatchetMessage:
    pq = mallory.state.pq
    kind = random.choice([NONE, EK, CT, REQUEST])
    payloads = [bytes(LENGTHS[kind]), random.randbytes(LENGTHS[kind]), *heard.get(kind, [])[-2:]]
    if kind == EK:
        payloads.append(own_key(pq.authentication_key.expose(), pq.epoch))
    epoch = max(0, pq.epoch - 1 + random.choice([0, 0, 0, -1, 1, 2**31]))
    return crafted(mallory, epoch, kind, random.choice(payloads))


def _try(end: End, message: RatchetMessage) -> bool:
    try:
        end.receive(message)
    except E2EEError as error:
        assert isinstance(error, AuthenticationError | EpochUnknownError)
        return False
    return True
