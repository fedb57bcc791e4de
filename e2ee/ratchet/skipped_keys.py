"""Keys of messages that were overtaken.

Owns: how a ratchet asks for such a key and says which keys a message adds or uses up.
Does not know about: where they are stored and when they die (stores/records.py).

The ratchets never change the map: they return what would change, and the caller commits it with the new state.
"""

from collections.abc import Callable
from enum import Enum, IntEnum
from typing import NamedTuple, final

from e2ee.errors import DuplicateMessageError, KeyEvictedError


@final
class Ratchet(IntEnum):
    """Which of the two maps."""

    DOUBLE = 1
    POST_QUANTUM = 2


class SkippedPosition(NamedTuple):
    """Where a message stands: a chain (the ratchet key, or the u32 epoch) and its index in it."""

    ratchet: Ratchet
    chain: bytes
    chain_index: int


class SkippedKey(NamedTuple):
    """The key of a message that has not arrived yet."""

    position: SkippedPosition
    key: bytes
    """32 bytes, secret. Plain because thousands are made at once; `repr` redacts."""

    def __repr__(self) -> str:
        return f"SkippedKey({self.position!r}, key redacted)"


@final
class Evicted(Enum):
    """Found in place of a key that was dropped."""

    EVICTED = 0


FindSkipped = Callable[[SkippedPosition], bytes | Evicted | None]
"""Looks a position up: the 32-byte key, EVICTED, or None if it is not in the map."""


def nothing_skipped(_position: SkippedPosition) -> None:
    """A lookup into an empty map."""
    return


def take(find: FindSkipped, position: SkippedPosition) -> bytes:
    """Return the key of an earlier position.

    Raises:
        DuplicateMessageError: the key was used up.
        KeyEvictedError: the key was dropped for age or number.
    """
    found = find(position)
    if found is None:
        raise DuplicateMessageError
    if isinstance(found, Evicted):
        raise KeyEvictedError
    return found
