"""Symmetric-key chains: one step, and many steps that leave skipped keys behind.

    KDF_CK(CK)  = kdf(CK, "E2EE/1 chain", "")        -> CK' || MK        (Double Ratchet section 2.2)
    PQ chain    = kdf(CK, "E2EE/1 PQ chain", u32 n)  -> CK' || MK_pq

Owns: these steps and the bound on skipping.
Does not know about: Diffie-Hellman, KEM, message encryption.
"""

from typing import Final

from e2ee.errors import TooManySkippedError
from e2ee.primitives.kdf import kdf_pair, prefixed
from e2ee.ratchet.skipped_keys import Ratchet, SkippedKey, SkippedPosition

CHAIN: Final = prefixed(b"E2EE/1 chain")
PQ_CHAIN: Final = prefixed(b"E2EE/1 PQ chain")


def advance(ratchet: Ratchet, chain_key: bytes, index: int) -> tuple[bytes, bytes]:
    """Return (next chain key, message key), 32 bytes each, for the message with this index."""
    if ratchet is Ratchet.DOUBLE:
        return kdf_pair(chain_key, CHAIN)
    return kdf_pair(chain_key, PQ_CHAIN + index.to_bytes(4, "big"))


def skip(
    chain_key: bytes, index: int, until: int, origin: tuple[Ratchet, bytes], limit: int
) -> tuple[bytes, tuple[SkippedKey, ...]]:
    """Advance a chain from `index` to `until`, keeping the keys between; linear time.

    `origin` names the ratchet and the chain, for the positions. Returns the chain key at `until` and the skipped keys.

    Raises:
        TooManySkippedError: more than `limit` steps. Checked before the first one.
    """
    gap = until - index
    if gap <= 0:
        return chain_key, ()
    if gap > limit:
        raise TooManySkippedError(gap, limit)
    ratchet, chain = origin
    skipped = []
    for position in range(index, until):
        chain_key, message_key = advance(ratchet, chain_key, position)
        skipped.append(SkippedKey(SkippedPosition(ratchet, chain, position), message_key))
    return chain_key, tuple(skipped)
