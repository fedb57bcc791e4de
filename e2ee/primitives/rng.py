"""The source of randomness, as a parameter, so that tests and vectors can fix it."""

import os
from collections.abc import Callable

Rng = Callable[[int], bytes]
"""Returns that many random bytes. Production code passes `system_rng`; nothing else is safe."""


def system_rng(length: int) -> bytes:
    """Return `length` bytes from the operating system's generator."""
    return os.urandom(length)
