"""Message encryption for Web Push: RFC 8291, with the content coding aes128gcm of RFC 8188.

    ikm   = HKDF(auth, ECDH(sender, user agent), "WebPush: info" || 0 || user agent's key || sender's key, 32)
    key   = HKDF(salt, ikm, "Content-Encoding: aes128gcm" || 0, 16)
    nonce = HKDF(salt, ikm, "Content-Encoding: nonce" || 0, 12)

Owns: these bytes. The one module of the server that encrypts: with keys made for one push, which protect a constant.
Does not know about: the protocol's own keys. docs/adr/0018 says why it is here.
"""

import os
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

RECORD_SIZE: Final = 4096
_LAST_RECORD: Final = b"\x02"


def encrypt(
    payload: bytes,
    user_agent_key: bytes,
    auth: bytes,
    *,
    sender: ec.EllipticCurvePrivateKey | None = None,
    salt: bytes = b"",
) -> bytes:
    """Return the body of a push. `sender` and `salt` (16 bytes) are fresh unless a test vector brings its own.

    Raises:
        ValueError: the user agent's key is not a point of P-256.
    """
    theirs = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), user_agent_key)
    sender = sender or ec.generate_private_key(ec.SECP256R1())
    salt = salt or os.urandom(16)
    ours = point(sender)
    shared = sender.exchange(ec.ECDH(), theirs)
    ikm = _hkdf(auth, shared, b"WebPush: info\0" + user_agent_key + ours, 32)
    key = _hkdf(salt, ikm, b"Content-Encoding: aes128gcm\0", 16)
    nonce = _hkdf(salt, ikm, b"Content-Encoding: nonce\0", 12)
    header = salt + RECORD_SIZE.to_bytes(4, "big") + bytes((len(ours),)) + ours
    return header + AESGCM(key).encrypt(nonce, payload + _LAST_RECORD, None)


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a key's public point, 65 bytes."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def public_point(pem: bytes) -> bytes:
    """Return the public point of a private key in PEM, 65 bytes.

    Raises:
        ValueError: it is no private key of P-256.
    """
    key = load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the key is not one of P-256")
    return point(key)


def _hkdf(salt: bytes, ikm: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(ikm)
