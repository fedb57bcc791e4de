"""Argon2id (RFC 9106), by OpenSSL: a passphrase becomes a key."""

from typing import Final, NamedTuple

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

SALT_LENGTH: Final = 16


class Argon2Cost(NamedTuple):
    """What one guess costs: memory in KiB, passes over it, parallel lanes."""

    memory_kib: int
    iterations: int
    lanes: int

    def is_allowed(self) -> bool:
        """Tell whether the algorithm is defined for these numbers and an honest store could ask for them.

        The upper bounds keep a hostile file from demanding more than 1 GiB and some ten seconds.
        """
        return 1 <= self.lanes <= 16 and 1 <= self.iterations <= 16 and 8 * self.lanes <= self.memory_kib <= 1 << 20


DEFAULT_COST: Final = Argon2Cost(memory_kib=64 * 1024, iterations=3, lanes=4)
"""The second recommended option of RFC 9106 section 4: for machines that cannot spare 2 GiB."""


def derive_key(passphrase: bytes, salt: bytes, cost: Argon2Cost) -> bytes:
    """Return a 32-byte key. Salt is 16 bytes; `cost` must be allowed.

    Raises:
        MemoryError: the machine does not have `cost.memory_kib` to spare.
    """
    return Argon2id(
        salt=salt, length=32, iterations=cost.iterations, lanes=cost.lanes, memory_cost=cost.memory_kib
    ).derive(passphrase)
