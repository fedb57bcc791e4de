"""Sessions and prekeys at rest are parsed once: what half the time of a long random run goes into otherwise.

Owns: the memory of what a record's bytes parse to. Safe, because parsing is a function of the bytes alone and what it
returns is a value: frozen, tuples all the way down.
Does not know about: stores, or which test uses it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Final

import pytest

from e2ee import persist

RECORDS: Final = 4096
"""More than all devices of one run hold at a time."""


@contextmanager
def decoded_once() -> Iterator[None]:
    """Within the block, bytes that were parsed not long ago are not parsed again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(persist, "decode_session", lru_cache(RECORDS)(persist.decode_session))
        patch.setattr(persist, "decode_prekey", lru_cache(RECORDS)(persist.decode_prekey))
        yield
