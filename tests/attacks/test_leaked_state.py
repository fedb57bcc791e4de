"""Attack: somebody copied a device's store, and breaks X25519 as well (docs/attacks.md).

The eavesdropper holds both ratchets of one end as they were at the leak, sees all traffic, and is given the Double
Ratchet's key of every message. She follows the post-quantum ratchet as far as its secrets let her: chains forwards,
an epoch whose seed leaked or whose keys were there already. After `heal_now` on both sides she reads nothing.
"""

from typing import Final

import pytest

from e2ee.limits import DAY_MS
from e2ee.primitives.kdf import kdf, sha256
from e2ee.private_keys import RatchetKemSeed
from e2ee.ratchet import pq_ratchet
from e2ee.ratchet.state import Answering, Offering, PqPhase, PqRatchetState, ProposeIdle, Waiting
from e2ee.wire.message import PqPayloadType, RatchetMessage
from tests import ratchet_steps
from tests.ratchet_pair import End, pair

PHASES: Final = (ProposeIdle, Offering, Waiting, Answering)


class Eve:
    """Holds a leaked state. Chains are kept by (epoch, whether the session's initiator sends on it)."""

    def __init__(self, leaked: PqRatchetState) -> None:
        self.chains: dict[tuple[int, bool], tuple[bytes, int]] = {
            (each.epoch, not leaked.initiator): (each.key, each.next_index) for each in leaked.receiving
        }
        self.chains[leaked.epoch - 1, leaked.initiator] = leaked.sending.key, leaked.sending.next_index
        self.newest, self.root_key = leaked.receiving[-1].epoch, leaked.root_key
        self.seeds: dict[int, tuple[RatchetKemSeed, bytes]] = {}
        if isinstance(leaked.turn.phase, Offering):
            self.seeds[leaked.epoch] = leaked.turn.phase.seed, leaked.turn.phase.payload[:1184]
        if isinstance(leaked.turn.phase, Answering):
            self.chains[leaked.epoch, leaked.initiator] = leaked.turn.phase.sending.key, 0

    def reads(self, message: RatchetMessage, double_key: bytes, *, from_initiator: bool) -> bool:
        """Follow a message as far as possible; tell whether its key is known."""
        header = message.header
        self._learn(header.pq_epoch + 1, header.pq_type, header.pq_payload)
        chain = self.chains.get((header.pq_epoch, from_initiator))
        if chain is None or header.pq_index < chain[1]:
            return False
        key, index = chain
        message_key = b""
        while index <= header.pq_index:
            output = kdf(key, b"E2EE/1 PQ chain", index.to_bytes(4, "big"))
            key, message_key, index = output[:32], output[32:], index + 1
        return kdf(message_key, b"E2EE/1 message", double_key)[32:] == message.commitment

    def _learn(self, epoch: int, kind: int, payload: bytes) -> None:
        """Derive an epoch whose seed is known and whose predecessor is."""
        if kind != PqPayloadType.CIPHERTEXT or epoch not in self.seeds or epoch != self.newest + 1:
            return
        seed, ek = self.seeds[epoch]
        ct = payload[:1088]
        secrets = self.root_key, seed.decapsulate(ct)
        keys = pq_ratchet.derive_epoch(epoch, secrets, sha256(ek) + sha256(ct), initiator=True)
        self.newest, self.root_key = epoch, keys.root_key
        self.chains[epoch, True] = keys.sending.key, 0
        self.chains[epoch, False] = keys.receiving.key, 0


def reach(phase: type[PqPhase], *, initiator: bool) -> tuple[End, End]:
    """Return a pair whose initiator, or responder, is in a phase."""
    ends = pair("leak")
    suspect = ends[0 if initiator else 1]
    for step in range(400):
        if suspect.phase is phase:
            return ends
        sender, recipient = ends[step % 2], ends[1 - step % 2]
        if step % 2 == 0:
            for end in ends:
                end.now += DAY_MS
        recipient.receive(sender.send(b"before the leak"))
    raise AssertionError("the phase was not reached")


@pytest.mark.parametrize("first", [0, 1], ids=["initiator speaks first", "responder speaks first"])
@pytest.mark.parametrize("initiator", [True, False], ids=["initiator leaked", "responder leaked"])
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
def test_a_full_leak_is_healed_after_three_round_trips(phase: type[PqPhase], initiator: bool, first: int) -> None:
    ends = reach(phase, initiator=initiator)
    eve = Eve(ends[0 if initiator else 1].state.pq)
    assert overheard(eve, ends, first, rounds=1) == [True, True], "the eavesdropper can follow until then"
    for end in ends:
        end.heal()
    overheard(eve, ends, first, rounds=3)
    assert not any(overheard(eve, ends, first, rounds=60))


def test_without_healing_the_eavesdropper_reads_on_until_the_next_epoch() -> None:
    """The control: the same eavesdropper is no straw man."""
    ends = reach(ProposeIdle, initiator=True)
    eve = Eve(ends[0].state.pq)
    assert all(overheard(eve, ends, 0, rounds=20))


def overheard(eve: Eve, ends: tuple[End, End], first: int, rounds: int) -> list[bool]:
    """Let both ends speak in turn; return which messages were read on the way."""
    heard = []
    for step in range(2 * rounds):
        speaker = (first + step) % 2
        sender, recipient = ends[speaker], ends[1 - speaker]
        message = sender.send(b"secret")
        find = recipient.skipped.get
        double_key = ratchet_steps.receive(recipient.state.double, message.fields[:3], find).message_key
        heard.append(eve.reads(message, double_key, from_initiator=speaker == 0))
        assert recipient.receive(message) == b"secret"
    return heard
