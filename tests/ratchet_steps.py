"""The steps of both ratchets with outcomes that have names.

Owns: the names. The ratchets return plain tuples, which their one caller takes apart at once.
Does not know about: what a step does.
"""

from typing import Generic, NamedTuple, TypeVar

from e2ee.limits import MAX_SKIP
from e2ee.primitives.rng import Rng
from e2ee.ratchet import chains, double_ratchet, pq_ratchet, triple_ratchet
from e2ee.ratchet.double_ratchet import DoubleRatchetHeader
from e2ee.ratchet.pq_ratchet import PqHeader
from e2ee.ratchet.skipped_keys import FindSkipped, SkippedKey, SkippedPosition
from e2ee.ratchet.state import DoubleRatchetState, PqRatchetState, RatchetState
from e2ee.ratchet.triple_ratchet import Arrival
from e2ee.wire.message import RatchetMessage

S = TypeVar("S", DoubleRatchetState, PqRatchetState)


class Sent(NamedTuple):
    """A send step of the Double Ratchet."""

    state: DoubleRatchetState
    message_key: bytes
    header: DoubleRatchetHeader


class PqSent(NamedTuple):
    """A send step of the post-quantum ratchet."""

    state: PqRatchetState
    message_key: bytes
    header: PqHeader


class Received(NamedTuple, Generic[S]):
    """A receive step of either."""

    state: S
    message_key: bytes
    gaps: tuple[chains.Gap, ...]
    used: SkippedPosition | None

    @property
    def skipped(self) -> tuple[SkippedKey, ...]:
        return chains.skipped_keys(self.gaps)


class Decrypted(NamedTuple):
    """A message that both ratchets together decrypted."""

    state: RatchetState
    plaintext: bytes
    skipped: tuple[SkippedKey, ...]
    used: tuple[SkippedPosition, ...]


def send(state: DoubleRatchetState, rng: Rng) -> Sent:
    """Take the step of `double_ratchet.send`."""
    after, key, ratchet_key, previous, index = double_ratchet.send(state, rng)
    return Sent(after, key, DoubleRatchetHeader(ratchet_key, previous, index))


def receive(
    state: DoubleRatchetState, header: double_ratchet.Header, find: FindSkipped, max_skip: int = MAX_SKIP
) -> Received[DoubleRatchetState]:
    """Take the step of `double_ratchet.receive`."""
    return Received(*double_ratchet.receive(state, header, find, max_skip))


def pq_send(state: PqRatchetState) -> PqSent:
    """Take the step of `pq_ratchet.send`."""
    after, key, epoch, index = pq_ratchet.send(state)
    return PqSent(after, key, PqHeader(epoch, index))


def pq_receive(
    state: PqRatchetState, header: pq_ratchet.Header, find: FindSkipped, max_skip: int = MAX_SKIP
) -> Received[PqRatchetState]:
    """Take the step of `pq_ratchet.receive`."""
    return Received(*pq_ratchet.receive(state, header, find, max_skip))


def decrypt(state: RatchetState, associated_data: bytes, message: RatchetMessage, arrival: Arrival) -> Decrypted:
    """Take the step of `triple_ratchet.decrypt`."""
    after, plaintext, skipped, used = triple_ratchet.decrypt(state, associated_data, message, arrival)
    return Decrypted(RatchetState(*after), plaintext, skipped, used)
