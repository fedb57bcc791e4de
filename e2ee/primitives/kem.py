"""ML-KEM (FIPS 203), by OpenSSL. Bytes in, bytes out; private keys are 64-byte seeds."""

from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
    MLKEM1024PrivateKey,
    MLKEM1024PublicKey,
)

from e2ee.errors import InvalidPublicKeyError, MalformedMessageError


def public_key_1024(seed: bytes) -> bytes:
    """Return the 1,568-byte encapsulation key of a 64-byte seed."""
    return MLKEM1024PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()


def encapsulate_1024(public_key: bytes) -> tuple[bytes, bytes]:
    """Return (32-byte shared secret, 1,568-byte ciphertext). The library draws the randomness itself.

    Raises:
        InvalidPublicKeyError: wrong length or a coefficient out of range.
    """
    try:
        return MLKEM1024PublicKey.from_public_bytes(public_key).encapsulate()
    except ValueError:
        raise InvalidPublicKeyError("ML-KEM-1024 encapsulation key") from None


def decapsulate_1024(seed: bytes, ciphertext: bytes) -> bytes:
    """Return the 32-byte shared secret. A wrong ciphertext gives a wrong secret, not an error (implicit rejection).

    Raises:
        MalformedMessageError: the ciphertext is not 1,568 bytes.
    """
    try:
        return MLKEM1024PrivateKey.from_seed_bytes(seed).decapsulate(ciphertext)
    except ValueError:
        raise MalformedMessageError("ML-KEM-1024 ciphertext") from None


def public_key_768(seed: bytes) -> bytes:
    """Return the 1,184-byte encapsulation key of a 64-byte seed."""
    return MLKEM768PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()


def encapsulate_768(public_key: bytes) -> tuple[bytes, bytes]:
    """Return (32-byte shared secret, 1,088-byte ciphertext). The library draws the randomness itself.

    Raises:
        InvalidPublicKeyError: wrong length or a coefficient out of range.
    """
    try:
        return MLKEM768PublicKey.from_public_bytes(public_key).encapsulate()
    except ValueError:
        raise InvalidPublicKeyError("ML-KEM-768 encapsulation key") from None


def decapsulate_768(seed: bytes, ciphertext: bytes) -> bytes:
    """Return the 32-byte shared secret. A wrong ciphertext gives a wrong secret, not an error (implicit rejection).

    Raises:
        MalformedMessageError: the ciphertext is not 1,088 bytes.
    """
    try:
        return MLKEM768PrivateKey.from_seed_bytes(seed).decapsulate(ciphertext)
    except ValueError:
        raise MalformedMessageError("ML-KEM-768 ciphertext") from None
