"""HPKE (RFC 9180), base mode, single shot, by OpenSSL. Bytes in, bytes out.

One suite: KEM MLKEM768-X25519 (0x647a, draft-ietf-hpke-pq, the hybrid also known as X-Wing), KDF HKDF-SHA512 (0x0003),
AEAD AES-256-GCM (0x0002). Private keys are 32-byte seeds; SHAKE-256 stretches one to the two keys of the hybrid.
"""

from hashlib import shake_256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from e2ee.errors import AuthenticationError, InvalidPublicKeyError

_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA512, AEAD.AES_256_GCM)
_MLKEM_SEED: Final = 64
_MLKEM_PUBLIC: Final = 1184

OVERHEAD: Final = 1120 + 16
"""Bytes that sealing adds: the encapsulated key in front, the tag behind."""


def public_key(seed: bytes) -> bytes:
    """Return the 1,216-byte public key of a 32-byte seed: ML-KEM-768 encapsulation key, then X25519 key."""
    stretched = _stretched(seed)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(stretched[:_MLKEM_SEED]).public_key().public_bytes_raw()
    return mlkem + X25519PrivateKey.from_private_bytes(stretched[_MLKEM_SEED:]).public_key().public_bytes_raw()


def seal(public_key: bytes, plaintext: bytes, info: bytes) -> bytes:
    """Return encapsulated key (1,120 bytes), ciphertext and tag. The library draws the randomness itself.

    Raises:
        InvalidPublicKeyError: wrong length, a coefficient out of range, or an X25519 point of low order.
    """
    try:
        mlkem = MLKEM768PublicKey.from_public_bytes(public_key[:_MLKEM_PUBLIC])
        x25519 = X25519PublicKey.from_public_bytes(public_key[_MLKEM_PUBLIC:])
        return _SUITE.encrypt(plaintext, MLKEM768X25519PublicKey(mlkem, x25519), info=info)
    except ValueError:
        raise InvalidPublicKeyError("HPKE public key") from None


def unseal(seed: bytes, sealed: bytes, info: bytes) -> bytes:
    """Return the plaintext.

    Raises:
        AuthenticationError: sealed for another key, with another info, changed, or too short.
    """
    stretched = _stretched(seed)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(stretched[:_MLKEM_SEED])
    x25519 = X25519PrivateKey.from_private_bytes(stretched[_MLKEM_SEED:])
    try:
        return _SUITE.decrypt(sealed, MLKEM768X25519PrivateKey(mlkem, x25519), info=info)
    except (InvalidTag, ValueError):
        raise AuthenticationError from None


def _stretched(seed: bytes) -> bytes:
    return shake_256(seed).digest(_MLKEM_SEED + 32)
