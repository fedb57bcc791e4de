"""Bytes read as a script, so that a fuzzer's small changes become small changes of what happens.

Owns: how choices and strings are taken from the bytes, and edits of a byte string.
Does not know about: what is done with them. Every byte string is a script; one that ends early goes on with zeros.
"""

from collections.abc import Sequence
from typing import TypeVar, final

T = TypeVar("T")

MAX_EDITS = 6


@final
class Script:
    """Takes choices off the front of the bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """True while bytes are left."""
        return self._at < len(self._data)

    def take(self, length: int) -> bytes:
        """Take up to `length` bytes."""
        taken = self._data[self._at : self._at + length]
        self._at += length
        return taken

    def number(self, size: int = 1) -> int:
        """Take an unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def pick(self, choices: Sequence[T]) -> T:
        """Take one byte and choose by it."""
        return choices[self.number() % len(choices)]

    def rest(self) -> bytes:
        """Take all that is left."""
        return self.take(len(self._data))


def edited(original: bytes, script: Script) -> bytes:
    """Return the bytes after up to six edits: flip a bit, overwrite, insert, delete, cut off."""
    changed = bytearray(original)
    for _ in range(min(script.number(), MAX_EDITS)):
        edit, at = script.number() % 5, script.number(2) % (len(changed) + 1)
        if edit == 0 and at < len(changed):
            changed[at] ^= 1 << script.number() % 8
        elif edit == 1:
            patch = script.take(script.number() % 40)
            changed[at : at + len(patch)] = patch
        elif edit == 2:
            changed[at:at] = script.take(script.number() % 40)
        elif edit == 3:
            del changed[at : at + script.number()]
        elif edit == 4:
            del changed[at:]
    return bytes(changed)
