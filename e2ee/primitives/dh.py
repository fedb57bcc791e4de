"""X25519 (RFC 7748), by libsodium. Bytes in, bytes out."""

from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base

from e2ee.errors import InvalidPublicKeyError

KEY_LENGTH = 32


def public_key(private_key: bytes) -> bytes:
    """Return the 32-byte public key of a 32-byte private key; clamping happens inside the scalar multiplication."""
    if len(private_key) != KEY_LENGTH:
        raise ValueError(f"an X25519 private key is {KEY_LENGTH} bytes")
    return crypto_scalarmult_base(private_key)


def exchange(private_key: bytes, their_public_key: bytes) -> bytes:
    """Return the 32-byte shared secret.

    Every Diffie-Hellman of the project runs through here, so the all-zero check cannot be forgotten.

    Raises:
        InvalidPublicKeyError: a low-order point, whose output would be all zero, or another length.
    """
    # The binding hands bare pointers to libsodium: a shorter string would be read past its end.
    if len(private_key) != KEY_LENGTH:
        raise ValueError(f"an X25519 private key is {KEY_LENGTH} bytes")
    if len(their_public_key) != KEY_LENGTH:
        raise InvalidPublicKeyError(f"an X25519 key is {KEY_LENGTH} bytes")
    try:
        return crypto_scalarmult(private_key, their_public_key)
    except RuntimeError:
        raise InvalidPublicKeyError("X25519 output is all zero") from None
