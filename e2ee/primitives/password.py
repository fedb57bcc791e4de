"""Argon2id (RFC 9106), by OpenSSL: a passphrase becomes a key."""

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id


def derive_key(passphrase: bytes, salt: bytes, iterations: int, lanes: int, memory_kib: int) -> bytes:
    """Return a 32-byte key. Salt is 16 bytes; memory is in KiB."""
    return Argon2id(salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory_kib).derive(passphrase)
