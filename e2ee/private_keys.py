"""SecretBytes and the private halves of all keys.

Owns: how secrets are held, compared and kept out of text; Diffie-Hellman, decapsulation and signing with typed keys.
Does not know about: where secrets are stored (persist.py) and what they are used for.

Python cannot erase memory reliably: objects are immutable, copied and collected late. Dropping a secret here means
dropping the last reference, no more; SECURITY.md says so too.
"""

import hmac
from collections.abc import Callable
from typing import ClassVar, Generic, NoReturn, Self, TypeVar, final

from e2ee.primitives import dh, hpke, kem, sign
from e2ee.primitives.rng import Rng
from e2ee.wire.public_keys import (
    AccountKey,
    DeviceSigningKey,
    EphemeralKey,
    IdentityKey,
    KemPreKeyPublicKey,
    LinkKey,
    PreKeyPublicKey,
    RatchetEncapsulationKey,
    RatchetPublicKey,
    X25519PublicKey,
)


class _Sealed:
    """Immutable, and serialised by e2ee.persist alone: pickling and copying refuse."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # a secret is never a dictionary key

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __getstate__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} is serialised by e2ee.persist only")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} is serialised by e2ee.persist only")


class SecretBytes(_Sealed):
    """A fixed-length secret. Leaves this wrapper only through :meth:`expose`.

    `repr` redacts, `==` is constant-time and only between equal types; hashing, pickling and copying refuse.
    """

    __slots__ = ("_raw",)
    LENGTH: ClassVar[int] = 32
    _raw: bytes

    def __init__(self, raw: bytes) -> None:
        if type(raw) is not bytes or len(raw) != self.LENGTH:
            raise ValueError(f"{type(self).__name__} is {self.LENGTH} bytes")
        _set_raw(self, raw)

    def expose(self) -> bytes:
        """Return the bytes. Every call is a place to review."""
        return self._raw

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and hmac.compare_digest(self._raw, other._raw)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} redacted>"


_set = object.__setattr__


_set_raw = SecretBytes._raw.__set__  # type: ignore[misc, attr-defined]  # the slot itself, past `__setattr__`


@final
class RootKey(SecretBytes):
    """RK of the Double Ratchet."""

    __slots__ = ()


@final
class PqRootKey(SecretBytes):
    """RK' of the post-quantum ratchet."""

    __slots__ = ()


@final
class PqAuthenticationKey(SecretBytes):
    """AK of one post-quantum epoch: authenticates the next encapsulation key."""

    __slots__ = ()


@final
class SharedSecret(SecretBytes):
    """The output of one Diffie-Hellman or encapsulation."""

    __slots__ = ()


@final
class SeedBytes32(SecretBytes):
    """An X25519 private key or an Ed25519 seed."""

    __slots__ = ()


@final
class SeedBytes64(SecretBytes):
    """An ML-KEM seed (d, z of FIPS 203)."""

    __slots__ = ()
    LENGTH = 64


@final
class RatchetKemSeed(SecretBytes):
    """The ML-KEM-768 private key of one epoch, as its seed: what is derived from it is needed too rarely to keep."""

    __slots__ = ()
    LENGTH = 64

    @classmethod
    def generate(cls, rng: Rng) -> "RatchetKemSeed":
        """Make a fresh one from 64 random bytes."""
        return cls(rng(64))

    def encapsulation_key(self) -> RatchetEncapsulationKey:
        """Derive ek (FIPS 203 section 7.1)."""
        return RatchetEncapsulationKey(kem.public_key_768(self.expose()))

    def decapsulate(self, ciphertext: bytes) -> SharedSecret:
        """Return ss of a 1,088-byte ciphertext (FIPS 203 section 7.3).

        Raises:
            MalformedMessageError: another length.
        """
        return SharedSecret(kem.decapsulate_768(self.expose(), ciphertext))


P = TypeVar("P", bound=X25519PublicKey)


class X25519KeyPair(_Sealed, Generic[P]):
    """An X25519 private key and its public key; one subclass per purpose."""

    __slots__ = ("private", "public")
    _PUBLIC: ClassVar[type[X25519PublicKey]]
    private: SeedBytes32
    public: P

    def __init__(self, private: SeedBytes32) -> None:
        public = self._PUBLIC(dh.public_key(private.expose()))
        _set(self, "private", private)
        _set(self, "public", public)

    @classmethod
    def generate(cls, rng: Rng) -> Self:
        """Make a fresh pair from 32 random bytes."""
        return cls(SeedBytes32(rng(32)))

    @classmethod
    def restore(cls, private: SeedBytes32, public: P) -> Self:
        """Take a stored pair without computing the public key again."""
        pair = cls.__new__(cls)
        _set(pair, "private", private)
        _set(pair, "public", public)
        return pair

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.private == other.private

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.public!r}, private half redacted>"


@final
class IdentityKeyPair(X25519KeyPair[IdentityKey]):
    """IK of this device."""

    __slots__ = ()
    _PUBLIC = IdentityKey


@final
class EphemeralKeyPair(X25519KeyPair[EphemeralKey]):
    """EK of one handshake."""

    __slots__ = ()
    _PUBLIC = EphemeralKey


@final
class PreKeyPair(X25519KeyPair[PreKeyPublicKey]):
    """SPK or OPK of this device."""

    __slots__ = ()
    _PUBLIC = PreKeyPublicKey


@final
class RatchetKeyPair(X25519KeyPair[RatchetPublicKey]):
    """DHs: our current ratchet key pair."""

    __slots__ = ()
    _PUBLIC = RatchetPublicKey


@final
class KemPreKeyPair(_Sealed):
    """PQPK of this device: an ML-KEM-1024 seed and its encapsulation key."""

    __slots__ = ("public", "seed")
    seed: SeedBytes64
    public: KemPreKeyPublicKey

    def __init__(self, seed: SeedBytes64, public: KemPreKeyPublicKey | None = None) -> None:
        """Take a seed; expanding it into the public key costs a key generation, so a stored one may be handed in."""
        _set(self, "seed", seed)
        _set(self, "public", public or KemPreKeyPublicKey(kem.public_key_1024(seed.expose())))

    @classmethod
    def generate(cls, rng: Rng) -> "KemPreKeyPair":
        """Make a fresh pair from 64 random bytes."""
        return cls(SeedBytes64(rng(64)))

    def decapsulate(self, ciphertext: bytes) -> SharedSecret:
        """Return ss of a 1,568-byte ciphertext (FIPS 203 section 7.3).

        Raises:
            MalformedMessageError: another length.
        """
        return SharedSecret(kem.decapsulate_1024(self.seed.expose(), ciphertext))

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.seed == other.seed

    def __repr__(self) -> str:
        return "<KemPreKeyPair redacted>"


class _SigningKeyPair(_Sealed):
    __slots__ = ("_seed",)
    _seed: SeedBytes32

    def __init__(self, seed: SeedBytes32) -> None:
        _set(self, "_seed", seed)

    @classmethod
    def generate(cls, rng: Rng) -> Self:
        """Make a fresh pair from 32 random bytes."""
        return cls(SeedBytes32(rng(32)))

    @property
    def seed(self) -> SeedBytes32:
        return self._seed

    def sign(self, signed_bytes: bytes) -> bytes:
        """Return the 64-byte signature over bytes that open with a label of their kind."""
        return sign.sign(self._seed.expose(), signed_bytes)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._seed == other._seed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} redacted>"


@final
class AccountKeyPair(_SigningKeyPair):
    """The account signing key: signs device lists."""

    __slots__ = ()

    @property
    def public(self) -> AccountKey:
        return AccountKey(sign.public_key(self._seed.expose()))


@final
class DeviceSigningKeyPair(_SigningKeyPair):
    """The device signing key: signs prekeys and login assertions."""

    __slots__ = ()

    @property
    def public(self) -> DeviceSigningKey:
        return DeviceSigningKey(sign.public_key(self._seed.expose()))


@final
class LinkKeyPair(_Sealed):
    """What a link bundle is sealed to: the HPKE key of one link, as its seed. It is never stored."""

    __slots__ = ("_seed", "public")
    _seed: SeedBytes32
    public: LinkKey

    def __init__(self, seed: SeedBytes32) -> None:
        _set(self, "_seed", seed)
        _set(self, "public", LinkKey(hpke.public_key(seed.expose())))

    @classmethod
    def generate(cls, rng: Rng) -> "LinkKeyPair":
        """Make a fresh pair from 32 random bytes."""
        return cls(SeedBytes32(rng(32)))

    def unseal(self, sealed: bytes, info: bytes) -> bytes:
        """Return what was sealed to this key with this info.

        Raises:
            AuthenticationError: it was not.
        """
        return hpke.unseal(self._seed.expose(), sealed, info)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._seed == other._seed

    def __repr__(self) -> str:
        return "<LinkKeyPair redacted>"


def seal_to(theirs: LinkKey, plaintext: bytes, info: bytes) -> bytes:
    """Seal with HPKE, in base mode: it says nothing about who sealed. Adds 1,136 bytes.

    Raises:
        InvalidPublicKeyError: a coefficient out of range, or of low order.
    """
    return hpke.seal(theirs.raw, plaintext, info)


def diffie_hellman(ours: RatchetKeyPair, theirs: RatchetPublicKey) -> SharedSecret:
    """One Diffie-Hellman of the ratchet (Double Ratchet section 3.1).

    Raises:
        InvalidPublicKeyError: a low-order point.
    """
    return SharedSecret(dh.exchange(ours.private.expose(), theirs.raw))


HandshakeKeyPair = IdentityKeyPair | EphemeralKeyPair | PreKeyPair
HandshakePublicKey = IdentityKey | EphemeralKey | PreKeyPublicKey


def handshake_diffie_hellman(ours: HandshakeKeyPair, theirs: HandshakePublicKey) -> SharedSecret:
    """One of DH1 to DH4 of the handshake (PQXDH section 3.3).

    Raises:
        InvalidPublicKeyError: a low-order point.
    """
    return SharedSecret(dh.exchange(ours.private.expose(), theirs.raw))


def encapsulate(theirs: KemPreKeyPublicKey) -> tuple[SharedSecret, bytes]:
    """Return (ss, 1,568-byte ciphertext) for a KEM prekey (FIPS 203 section 7.2).

    Raises:
        InvalidPublicKeyError: the key is out of range.
    """
    shared_secret, ciphertext = kem.encapsulate_1024(theirs.raw)
    return SharedSecret(shared_secret), ciphertext


Encapsulate = Callable[[KemPreKeyPublicKey], tuple[SharedSecret, bytes]]
"""The form of `encapsulate`: the library draws its randomness itself, so test vectors put a recorded one in its place.
Production code passes `encapsulate`; nothing else is safe."""


def encapsulate_in_ratchet(theirs: RatchetEncapsulationKey) -> tuple[SharedSecret, bytes]:
    """Return (ss, 1,088-byte ciphertext) for an epoch's encapsulation key (FIPS 203 section 7.2).

    Raises:
        InvalidPublicKeyError: the key is out of range.
    """
    shared_secret, ciphertext = kem.encapsulate_768(theirs.raw)
    return SharedSecret(shared_secret), ciphertext


RatchetEncapsulate = Callable[[RatchetEncapsulationKey], tuple[SharedSecret, bytes]]
"""The form of `encapsulate_in_ratchet`, for test vectors as above."""
