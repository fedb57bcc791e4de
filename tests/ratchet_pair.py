"""Both ratchets of two ends, and the maps of skipped keys beside them; no sessions, contents or stores.

Owns: ends that send and receive, in any order.
Does not know about: what is tested.
"""

from typing import Final

from e2ee.private_keys import PreKeyPair, RootKey, SharedSecret
from e2ee.ratchet import double_ratchet, pq_ratchet, pq_turns, triple_ratchet
from e2ee.ratchet.skipped_keys import SkippedPosition
from e2ee.ratchet.state import PqPhase, RatchetState
from e2ee.ratchet.triple_ratchet import Arrival
from e2ee.wire.message import RatchetMessage
from tests.wire_objects import NOW, seeded_rng

ASSOCIATED_DATA: Final = b"\x33" * 32


class End:
    """One end with its clock."""

    def __init__(self, state: RatchetState, seed: str) -> None:
        self.state = state
        self.skipped: dict[SkippedPosition, bytes] = {}
        self.now = NOW
        self._rng = seeded_rng(seed)

    @property
    def phase(self) -> type[PqPhase]:
        return type(self.state.pq.turn.phase)

    def send(self, text: bytes) -> RatchetMessage:
        plaintext = text.ljust(256, b".")
        self.state, encoded = triple_ratchet.encrypt(self.state, ASSOCIATED_DATA, plaintext, self.now, self._rng)
        return RatchetMessage.decode(encoded)

    def receive(self, message: RatchetMessage) -> bytes:
        """Decrypt a message.

        Raises:
            See `triple_ratchet.decrypt`; nothing has changed then.
        """
        arrival = Arrival(self.skipped.get, self.now)
        self.state, plaintext, skipped, used = triple_ratchet.decrypt(self.state, ASSOCIATED_DATA, message, arrival)
        self.skipped.update({each.position: each.key for each in skipped})
        for position in used:
            del self.skipped[position]
        return plaintext.rstrip(b".")

    def heal(self) -> None:
        self.state = self.state._replace(pq=pq_turns.ask_for_healing(self.state.pq))


def pair(seed: int | str = 0) -> tuple[End, End]:
    """Return initiator and responder, the first message delivered."""
    prekey = PreKeyPair.generate(seeded_rng(f"prekey {seed}"))
    root, secret = RootKey(b"\x11" * 32), SharedSecret(b"\x22" * 32)
    initiator = RatchetState(
        double_ratchet.start_as_initiator(root, prekey.public), pq_ratchet.start(secret, initiator=True, now=NOW)
    )
    responder = RatchetState(
        double_ratchet.start_as_responder(root, prekey), pq_ratchet.start(secret, initiator=False, now=NOW)
    )
    alice, bob = End(initiator, f"alice {seed}"), End(responder, f"bob {seed}")
    bob.receive(alice.send(b"first"))
    return alice, bob
