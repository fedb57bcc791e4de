"""Randomness that a vector prescribes.

Owns: handing out the given bytes in order, and noticing a draw too many, too few or of another length.
Does not know about: what is drawn.
"""

from typing import final

from e2ee.private_keys import SharedSecret, encapsulate_in_ratchet
from e2ee.wire.public_keys import RatchetEncapsulationKey


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


@final
class Encapsulation:
    """A `RatchetEncapsulate` that returns the prescribed outcome once, if there is one."""

    __slots__ = ("_ciphertext", "_secret")

    def __init__(self, shared_secret: bytes | None = None, ciphertext: bytes | None = None) -> None:
        self._secret = SharedSecret(shared_secret) if shared_secret is not None else None
        self._ciphertext = ciphertext

    def __call__(self, theirs: RatchetEncapsulationKey) -> tuple[SharedSecret, bytes]:
        encapsulate_in_ratchet(theirs)  # for its check of the key; its random outcome is dropped
        if self._secret is None or self._ciphertext is None:
            raise ValueError("the vector prescribes no encapsulation here")
        secret, self._secret = self._secret, None
        return secret, self._ciphertext

    def finish(self) -> None:
        """Check that the prescribed encapsulation was made.

        Raises:
            ValueError: it was not.
        """
        if self._secret is not None:
            raise ValueError("the prescribed encapsulation was not made")
