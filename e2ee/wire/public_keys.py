"""Public keys, one type per purpose, so that mypy refuses a swapped argument.

Owns: lengths and canonical form of public keys.
Does not know about: private halves, and whether anybody vouches for a key.
"""

from typing import ClassVar, Self, final

from e2ee.errors import InvalidPublicKeyError
from e2ee.wire.codec import Reader
from e2ee.wire.identifiers import FixedBytes

_P: int = (1 << 255) - 19


class PublicKey(FixedBytes):
    """Base of all public keys."""

    __slots__ = ()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Accept a key from outside.

        Raises:
            InvalidPublicKeyError: wrong length or non-canonical.
        """
        if len(raw) != cls.LENGTH:
            raise InvalidPublicKeyError(f"{cls.__name__} is {cls.LENGTH} bytes, not {len(raw)}")
        cls._check(raw)
        return cls(raw)

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Parse lower-case hex; as strict as `from_bytes`.

        Raises:
            MalformedMessageError: another length, or characters other than 0-9a-f.
            InvalidPublicKeyError: non-canonical.
        """
        return cls.from_bytes(super().from_hex(text).raw)

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        """Take a key off a reader; as strict as `from_bytes`.

        Raises:
            MalformedMessageError: truncated.
            InvalidPublicKeyError: non-canonical.
        """
        return cls.from_bytes(reader.fixed(cls.LENGTH))

    @classmethod
    def _check(cls, raw: bytes) -> None:
        """Refuse what has the right length and is still no key. Nothing to refuse by default."""


class Ed25519PublicKey(PublicKey):
    """32 bytes. Small-order and non-canonical points are refused when a signature is verified."""

    __slots__ = ()
    LENGTH: ClassVar[int] = 32


class X25519PublicKey(PublicKey):
    """32 bytes, bit 255 clear and u < p (protocol.md section 2). Low-order points are refused at the exchange."""

    __slots__ = ()
    LENGTH: ClassVar[int] = 32

    @classmethod
    def _check(cls, raw: bytes) -> None:
        # One comparison covers both rules: with bit 255 set the integer is above p.
        if raw[31] >= 0x7F and int.from_bytes(raw, "little") >= _P:
            raise InvalidPublicKeyError(f"{cls.__name__} is not canonical")


@final
class AccountKey(Ed25519PublicKey):
    """Signs the user's device lists; what safety numbers compare."""

    __slots__ = ()


@final
class DeviceSigningKey(Ed25519PublicKey):
    """Signs one device's prekeys and login assertions."""

    __slots__ = ()


@final
class IdentityKey(X25519PublicKey):
    """IK: a device's long-term Diffie-Hellman key (DH1, DH2)."""

    __slots__ = ()


@final
class EphemeralKey(X25519PublicKey):
    """EK: the initiator's key of one handshake."""

    __slots__ = ()


@final
class PreKeyPublicKey(X25519PublicKey):
    """SPK or OPK: a prekey of the responder."""

    __slots__ = ()


@final
class RatchetPublicKey(X25519PublicKey):
    """DHs, DHr: a ratchet key of the Double Ratchet."""

    __slots__ = ()


@final
class KemPreKeyPublicKey(PublicKey):
    """PQPK: an ML-KEM-1024 encapsulation key. Its range is checked by the encapsulation (FIPS 203 section 7.2)."""

    __slots__ = ()
    LENGTH: ClassVar[int] = 1568


@final
class RatchetEncapsulationKey(PublicKey):
    """ek: the ML-KEM-768 encapsulation key of one epoch. Its range is checked by the encapsulation."""

    __slots__ = ()
    LENGTH: ClassVar[int] = 1184


@final
class LinkKey(PublicKey):
    """The HPKE key of a device that is being linked: ML-KEM-768, then X25519. Checked when one seals to it."""

    __slots__ = ()
    LENGTH: ClassVar[int] = 1216
