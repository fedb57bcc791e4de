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
from e2ee.ratchet import chains, double_ratchet, pq_ratchet, pq_turns
from e2ee.ratchet.skipped_keys import FindSkipped, SkippedKey, SkippedPosition
from e2ee.ratchet.state import Ratchets
from e2ee.wire.message import NONCE_LENGTH, RatchetMessage, encode_prefix

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


Decrypted = tuple[Ratchets, bytes, tuple[SkippedKey, ...], tuple[SkippedPosition, ...]]
"""The outcome of `decrypt`: the next state, the plaintext, the keys of what was overtaken, the keys that were used up.
Commit all of it in one transaction, or nothing."""


def encrypt(state: Ratchets, associated_data: bytes, plaintext: bytes, now: int, rng: Rng) -> tuple[Ratchets, bytes]:
    """Encrypt one message at `now` (Unix milliseconds); return the next state and the encoded RatchetMessage.

    The associated data of the AEAD is T (`associated_data`, 32 bytes) and the message's bytes before the ciphertext.
    """
    double, pq, receives = state
    double, double_key, ratchet_key, previous, index = double_ratchet.send(double, rng)
    pq, pq_type, payload = pq_turns.before_sending(pq, now, rng)
    pq, pq_key, pq_epoch, pq_index = pq_ratchet.send(pq)
    key, commitment = kdf_pair(pq_key, _MESSAGE + double_key)
    # Each key seals one message, and yet the nonce is random: if a store is ever rolled back or cloned, no (key,
    # nonce) repeats.
    nonce = rng(NONCE_LENGTH)
    header = ratchet_key, previous, index, pq_epoch, pq_index, pq_type, payload
    prefix = encode_prefix(header, commitment, nonce)
    ciphertext = aead.seal(key, nonce, plaintext, associated_data + prefix)
    return (double, pq, receives), prefix + ciphertext


def decrypt(state: Ratchets, associated_data: bytes, message: RatchetMessage, arrival: Arrival) -> Decrypted:
    """Decrypt one message.

    Raises:
        AuthenticationError: the commitment or the ciphertext is wrong, or what it carries for the post-quantum ratchet;
            deliberately one error for all.
        DuplicateMessageError, KeyEvictedError, TooManySkippedError, EpochUnknownError, InvalidPublicKeyError:
            see `double_ratchet.receive` and `pq_ratchet.receive`.
    """
    find, now, max_skip, encapsulate = arrival
    fields, sent_commitment, nonce, ciphertext, prefix = message
    header, pq_header = fields[:3], fields[3:]
    double, pq, receives = state
    double, double_key, gaps, used_of_double = double_ratchet.receive(double, header, find, max_skip)
    try:
        pq, pq_key, pq_gaps, used_of_pq = pq_ratchet.receive(pq, pq_header, find, max_skip)
    except DuplicateMessageError:
        # The Double Ratchet had a key, so the message is no duplicate: the two halves of the header belong to different
        # messages, or to another session.
        raise AuthenticationError from None
    key, commitment = kdf_pair(pq_key, _MESSAGE + double_key)
    if not hmac.compare_digest(commitment, sent_commitment):
        raise AuthenticationError
    plaintext = aead.unseal(key, nonce, ciphertext, associated_data + prefix)
    pq = pq_turns.after_authentication(pq, pq_header, now, receives, encapsulate)
    skipped: tuple[SkippedKey, ...] = ()
    if gaps or pq_gaps:
        skipped = chains.skipped_keys(gaps + pq_gaps)
    used: tuple[SkippedPosition, ...] = ()
    if used_of_double is not None or used_of_pq is not None:
        used = tuple(position for position in (used_of_double, used_of_pq) if position is not None)
    return (double, pq, receives + 1), plaintext, skipped, used
