"""AES-256-GCM (NIST SP 800-38D), by OpenSSL. Bytes in, bytes out."""

from typing import final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from e2ee.errors import AuthenticationError

KEY_LENGTH = 32
NONCE_LENGTH = 12
TAG_LENGTH = 16


def seal(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Return ciphertext and 16-byte tag. The caller guarantees that (key, nonce) never repeats."""
    return AESGCM(key).encrypt(nonce, plaintext, aad)


def unseal(key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
    """Return the plaintext.

    Raises:
        AuthenticationError: key, nonce, associated data, ciphertext or tag is wrong, or `sealed` is too short.
    """
    try:
        return AESGCM(key).decrypt(nonce, sealed, aad)
    except (InvalidTag, ValueError):
        raise AuthenticationError from None


@final
class Sealer:
    """`seal` and `unseal` under one key that serves many times, so that the key schedule is computed once."""

    __slots__ = ("_aes",)

    def __init__(self, key: bytes) -> None:
        self._aes = AESGCM(key)

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """Return ciphertext and 16-byte tag. The caller guarantees that (key, nonce) never repeats."""
        return self._aes.encrypt(nonce, plaintext, aad)

    def unseal(self, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
        """Return the plaintext.

        Raises:
            AuthenticationError: key, nonce, associated data, ciphertext or tag is wrong, or `sealed` is too short.
        """
        try:
            return self._aes.decrypt(nonce, sealed, aad)
        except (InvalidTag, ValueError):
            raise AuthenticationError from None
