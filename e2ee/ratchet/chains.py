"""Symmetric-key chains: one step, and many steps that leave skipped keys behind.

    KDF_CK(CK)  = kdf(CK, "E2EE/1 chain", "")        -> CK' || MK        (Double Ratchet section 2.2)
    PQ chain    = kdf(CK, "E2EE/1 PQ chain", u32 n)  -> CK' || MK_pq

Owns: these steps and the bound on skipping.
Does not know about: Diffie-Hellman, KEM, message encryption.

Skipping has two halves, because whoever forges a header makes us skip: before its message has authenticated, a chain is
followed as far as the message's own key needs; the keys on the way are derived afterwards.
"""

from collections.abc import Iterable
from itertools import repeat
from typing import Final, NamedTuple

from e2ee.errors import TooManySkippedError
from e2ee.primitives.kdf import kdf_pair, prefixed
from e2ee.ratchet.skipped_keys import Ratchet, SkippedKey, SkippedPosition
from e2ee.ratchet.state import new_record, secret_record

CHAIN: Final = prefixed(b"E2EE/1 chain")
PQ_CHAIN: Final = prefixed(b"E2EE/1 PQ chain")


@secret_record
class Gap(NamedTuple):
    """Messages of one chain that were overtaken."""

    ratchet: Ratchet
    chain: bytes
    """See `SkippedPosition`."""
    key: bytes
    """The chain key at `first`, 32 bytes, secret."""
    first: int
    until: int
    """The first index behind the gap."""

    def derive(self) -> list[SkippedKey]:
        """Derive the keys of these messages; linear time. Once the message behind them has authenticated."""
        ratchet, chain, chain_key, first, until = self
        skipped = []
        for position, step in enumerate(_steps(ratchet, first, until), first):
            chain_key, message_key = kdf_pair(chain_key, step)
            at = new_record(SkippedPosition, (ratchet, chain, position))
            skipped.append(new_record(SkippedKey, (at, message_key)))
        return skipped


def gap(chain_key: bytes, index: int, until: int, origin: tuple[Ratchet, bytes], limit: int) -> tuple[Gap, ...]:
    """Return the gap from `index` to `until` of a chain, whose key at `index` this is; nothing if there is none.

    `origin` names the ratchet and the chain, for the positions.

    Raises:
        TooManySkippedError: it is wider than `limit`. Nothing was computed.
    """
    width = until - index
    if width <= 0:
        return ()
    if width > limit:
        raise TooManySkippedError(width, limit)
    return (Gap(*origin, chain_key, index, until),)


def skip(
    chain_key: bytes, index: int, until: int, origin: tuple[Ratchet, bytes], limit: int
) -> tuple[bytes, tuple[Gap, ...]]:
    """Advance a chain from `index` to `until`; linear time. Returns the chain key at `until`, and the gap.

    Raises:
        TooManySkippedError: see `gap`.
    """
    gaps = gap(chain_key, index, until, origin, limit)
    ratchet, _ = origin
    for step in _steps(ratchet, index, until):
        chain_key, _ = kdf_pair(chain_key, step)
    return chain_key, gaps


def skipped_keys(gaps: tuple[Gap, ...]) -> tuple[SkippedKey, ...]:
    """Derive the keys of some gaps."""
    return tuple(key for each in gaps for key in each.derive())


def _steps(ratchet: Ratchet, index: int, until: int) -> Iterable[bytes]:
    """Return what each step of a chain hashes beside the chain key."""
    if ratchet is Ratchet.DOUBLE:
        return repeat(CHAIN, until - index)
    return [PQ_CHAIN + position.to_bytes(4, "big") for position in range(index, until)]
