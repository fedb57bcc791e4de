"""Ed25519 signing (RFC 8032), by libsodium. Bytes in, bytes out; private keys are 32-byte seeds."""

from nacl.bindings import crypto_sign, crypto_sign_seed_keypair


def public_key(seed: bytes) -> bytes:
    """Return the 32-byte public key of a 32-byte seed."""
    return crypto_sign_seed_keypair(seed)[0]


def sign(seed: bytes, message: bytes) -> bytes:
    """Return the 64-byte signature. Deterministic."""
    _, secret_key = crypto_sign_seed_keypair(seed)
    return crypto_sign(message, secret_key)[:64]
