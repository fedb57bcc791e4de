"""Randomness that a vector prescribes.

Owns: handing out the given bytes in order, and noticing a draw too many, too few or of another length.
Does not know about: what is drawn.
"""

from typing import final


@final
class Script:
    """An `Rng` that returns the given values, one per draw."""

    __slots__ = ("_left",)

    def __init__(self, *values: bytes | None) -> None:
        """Take the values in the order of use; those that are None are left out."""
        self._left = [value for value in values if value is not None]

    def __call__(self, length: int) -> bytes:
        if not self._left or len(self._left[0]) != length:
            raise ValueError(f"the vector prescribes no draw of {length} bytes here")
        return self._left.pop(0)

    def finish(self) -> None:
        """Check that everything was drawn.

        Raises:
            ValueError: a value is left: the vector prescribes more randomness than the protocol uses.
        """
        if self._left:
            raise ValueError(f"{len(self._left)} prescribed draws were not made")
