"""Key derivation: HKDF-SHA-512 where a Diffie-Hellman or KEM secret comes in, keyed BLAKE2b for symmetric steps.

The reasons are in docs/adr/0002. Bytes in, bytes out.
"""

import hmac
import struct
from hashlib import blake2b, sha256 as _sha256

_HASH_LENGTH = 64
_HALVES = struct.Struct("32s32s").unpack


def sha256(data: bytes) -> bytes:
    """Return the 32-byte SHA-256 of `data`."""
    return _sha256(data).digest()


def hkdf_sha512(salt: bytes, input_key_material: bytes, info: bytes, length: int) -> bytes:
    """HKDF with SHA-512 (RFC 5869): extract, then expand to `length` <= 16,320 bytes.

    Written with `hmac.digest` because it is three times faster than an HKDF object for one or two blocks.
    """
    pseudo_random_key = hmac.digest(salt or bytes(_HASH_LENGTH), input_key_material, "sha512")
    output = block = b""
    counter = 1
    while len(output) < length:
        block = hmac.digest(pseudo_random_key, block + info + bytes((counter,)), "sha512")
        output += block
        counter += 1
    return output[:length]


def kdf(key: bytes, label: bytes, data: bytes = b"") -> bytes:
    """Symmetric step: BLAKE2b-512(key, u8 len(label) || label || data), 64 bytes (RFC 7693, no personalisation)."""
    return blake2b(prefixed(label) + data, key=key).digest()


def prefixed(label: bytes) -> bytes:
    """Return `u8 len(label) || label`, so that a label used for every message is put together once."""
    return bytes((len(label),)) + label


def kdf_pair(key: bytes, prefixed_data: bytes) -> tuple[bytes, bytes]:
    """`kdf` of data that has its prefixed label in front already, cut into two keys of 32 bytes."""
    return _HALVES(blake2b(prefixed_data, key=key).digest())


def mac(key: bytes, label: bytes, data: bytes) -> bytes:
    """Like `kdf` with a 32-byte digest. Compare with `hmac.compare_digest`."""
    return blake2b(bytes((len(label),)) + label + data, key=key, digest_size=32).digest()
