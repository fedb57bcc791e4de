"""The source of randomness, as a parameter, so that tests and vectors can fix it."""

import os
from collections.abc import Callable
from typing import Final

Rng = Callable[[int], bytes]
"""Returns that many random bytes. Production code passes `system_rng`; nothing else is safe."""


system_rng: Final[Rng] = os.urandom
"""The operating system's generator."""
