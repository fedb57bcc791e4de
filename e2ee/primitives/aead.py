"""AES-256-GCM (NIST SP 800-38D), by OpenSSL. Bytes in, bytes out."""

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
