"""Both ratchets together, and the encryption of one message under their joint key (protocol.md sections 7.4 and 8).

    message key = kdf(MK_pq, "E2EE/1 message", MK_dr) -> AES-256-GCM key 32 || commitment 32

Whoever breaks one ratchet still lacks the other's key.

Owns: the combination, the key-committing AEAD.
Does not know about: what the plaintext is, sessions, storage.
"""

import hmac
from typing import Final, NamedTuple

from e2ee.errors import AuthenticationError, DuplicateMessageError
from e2ee.limits import MAX_SKIP
from e2ee.primitives import aead
from e2ee.primitives.kdf import kdf_pair, prefixed
from e2ee.primitives.rng import Rng
from e2ee.private_keys import RatchetEncapsulate, encapsulate_in_ratchet
from e2ee.ratchet import double_ratchet, pq_ratchet, pq_turns
from e2ee.ratchet.skipped_keys import FindSkipped, SkippedKey, SkippedPosition
from e2ee.ratchet.state import RatchetState, new_record
from e2ee.wire.message import NONCE_LENGTH, RatchetMessage, encode_header

MESSAGE_LABEL: Final = b"E2EE/1 message"
"""Domain separation; changing it is a wire break."""

_MESSAGE = prefixed(MESSAGE_LABEL)


class Arrival(NamedTuple):
    """What an arriving message meets on this device."""

    find: FindSkipped
    now: int
    """Unix milliseconds."""
    max_skip: int = MAX_SKIP
    """Keys that it may skip in each chain."""
    encapsulate: RatchetEncapsulate = encapsulate_in_ratchet
    """Test vectors put a recorded one in its place; nothing else is safe."""


class Decrypted(NamedTuple):
    """The outcome of `decrypt`: commit all of it in one transaction, or nothing."""

    state: RatchetState
    plaintext: bytes
    skipped: tuple[SkippedKey, ...]
    used: tuple[SkippedPosition, ...]

    def __repr__(self) -> str:
        return f"Decrypted({len(self.plaintext)} bytes redacted, {len(self.skipped)} skipped, {len(self.used)} used)"


def encrypt(
    state: RatchetState, associated_data: bytes, plaintext: bytes, now: int, rng: Rng
) -> tuple[RatchetState, bytes]:
    """Encrypt one message at `now` (Unix milliseconds); return the next state and the encoded RatchetMessage.

    The associated data of the AEAD is T (`associated_data`, 32 bytes) and the message's bytes before the ciphertext.
    """
    double = double_ratchet.send(state.double, rng)
    before, payload_type, payload = pq_turns.before_sending(state.pq, now, rng)
    pq = pq_ratchet.send(before)
    key, commitment = kdf_pair(pq.message_key, _MESSAGE + double.message_key)
    # Each key seals one message, and yet the nonce is random: if a store is ever rolled back or cloned, no (key,
    # nonce) repeats.
    nonce = rng(NONCE_LENGTH)
    header = (*double.header, before.epoch - 1, before.sending.next_index, payload_type, payload)
    prefix = encode_header(header) + commitment + nonce
    ciphertext = aead.seal(key, nonce, plaintext, associated_data + prefix)
    return new_record(RatchetState, (double.state, pq.state, state.receives)), prefix + ciphertext


def decrypt(state: RatchetState, associated_data: bytes, message: RatchetMessage, arrival: Arrival) -> Decrypted:
    """Decrypt one message.

    Raises:
        AuthenticationError: the commitment or the ciphertext is wrong, or what it carries for the post-quantum ratchet;
            deliberately one error for all.
        DuplicateMessageError, KeyEvictedError, TooManySkippedError, EpochUnknownError, InvalidPublicKeyError:
            see `double_ratchet.receive` and `pq_ratchet.receive`.
    """
    find, now, max_skip, encapsulate = arrival
    header = message.header
    double = double_ratchet.receive(state.double, header, find, max_skip)
    try:
        pq = pq_ratchet.receive(state.pq, header, find, max_skip)
    except DuplicateMessageError:
        # The Double Ratchet had a key, so the message is no duplicate: the two halves of the header belong to different
        # messages, or to another session.
        raise AuthenticationError from None
    key, commitment = kdf_pair(pq.message_key, _MESSAGE + double.message_key)
    if not hmac.compare_digest(commitment, message.commitment):
        raise AuthenticationError
    plaintext = aead.unseal(key, message.nonce, message.ciphertext, associated_data + message.prefix)
    moment = new_record(pq_turns.Moment, (now, state.receives))
    pq_state = pq_turns.after_authentication(pq.state, header, moment, encapsulate)
    used: tuple[SkippedPosition, ...] = ()
    if double.used is not None or pq.used is not None:
        used = tuple(position for position in (double.used, pq.used) if position is not None)
    advanced = new_record(RatchetState, (double.state, pq_state, state.receives + 1))
    return new_record(Decrypted, (advanced, plaintext, double.skipped + pq.skipped, used))
