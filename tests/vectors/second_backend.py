"""The cryptography of E2EE/1 once more, from docs/protocol.md alone, on other code than the package's.

Owns: X25519 and Ed25519 by OpenSSL where the package uses libsodium; HKDF as an object of `cryptography`; AES-256-GCM
from AES in counter mode and GHASH in integers; BLAKE2b and SHA-2 of the standard library, the formulas written anew.
Does not know about: the e2ee package. Nothing here is constant-time.
"""

import hashlib
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PQXDH_INFO: Final = b"E2EE/1 PQXDH X25519 ML-KEM-1024 SHA-512"


# --- section 1.5 ---------------------------------------------------------------------------------------------


def hkdf(salt: bytes, key_material: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA512(), length, salt, info).derive(key_material)


def kdf(key: bytes, label: str, data: bytes = b"", size: int = 64) -> bytes:
    message = len(label).to_bytes(1, "big") + label.encode() + data
    return hashlib.blake2b(message, digest_size=size, key=key).digest()


def mac(key: bytes, label: str, data: bytes) -> bytes:
    return kdf(key, label, data, 32)


def pair(data: bytes) -> tuple[bytes, bytes]:
    return data[:32], data[32:]


def x25519_public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def x25519(private: bytes, public: bytes) -> bytes:
    ours = X25519PrivateKey.from_private_bytes(private)
    return ours.exchange(X25519PublicKey.from_public_bytes(public))


def kem_public(seed: bytes) -> bytes:
    return MLKEM1024PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()


def decapsulate(seed: bytes, ciphertext: bytes) -> bytes:
    return MLKEM1024PrivateKey.from_seed_bytes(seed).decapsulate(ciphertext)


# --- section 3 -----------------------------------------------------------------------------------------------


def ed25519_public(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign(seed: bytes, message: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).sign(message)


def verifies(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def labelled(label: str, fields: bytes) -> bytes:
    return len(label).to_bytes(1, "big") + label.encode() + fields


# --- section 4.3 ---------------------------------------------------------------------------------------------


def safety_digest(user_id: str, account_key: bytes) -> bytes:
    digest = hashlib.sha512(labelled("E2EE/1 safety number", account_key + user_id.encode())).digest()
    for _ in range(5199):
        digest = hashlib.sha512(digest + account_key).digest()
    return digest


def safety_half(user_id: str, account_key: bytes) -> str:
    digest = safety_digest(user_id, account_key)
    return "".join(str(int.from_bytes(digest[at : at + 5], "big") % 100_000).zfill(5) for at in range(0, 30, 5))


# --- section 6 -----------------------------------------------------------------------------------------------


def address(user_id: str, device_id: bytes) -> bytes:
    return len(user_id).to_bytes(1, "big") + user_id.encode() + device_id


def handshake_secrets(transcript: bytes, exchanged: list[bytes], kem_secret: bytes) -> tuple[bytes, bytes, bytes]:
    """Return T, SK_dr and SK_pq."""
    associated_data = hashlib.sha256(transcript).digest()
    key_material = b"\xff" * 32 + b"".join(exchanged) + kem_secret
    return associated_data, *pair(hkdf(bytes(64), key_material, PQXDH_INFO + associated_data, 64))


# --- section 7 -----------------------------------------------------------------------------------------------


def root_step(root_key: bytes, secret: bytes) -> tuple[bytes, bytes]:
    return pair(hkdf(root_key, secret, b"E2EE/1 root", 64))


def chain_step(chain_key: bytes) -> tuple[bytes, bytes]:
    return pair(kdf(chain_key, "E2EE/1 chain"))


def pq_root(epoch: int, root_key: bytes, secret: bytes, bind: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Return RK', CK_ir, CK_ri and AK of an epoch."""
    output = hkdf(root_key, secret, b"E2EE/1 PQ root" + epoch.to_bytes(4, "big") + bind, 128)
    return output[:32], output[32:64], output[64:96], output[96:]


def pq_mac(authentication_key: bytes, label: str, epoch: int, data: bytes) -> bytes:
    return mac(authentication_key, label, epoch.to_bytes(4, "big") + data)


def pq_chain_step(chain_key: bytes, index: int) -> tuple[bytes, bytes]:
    return pair(kdf(chain_key, "E2EE/1 PQ chain", index.to_bytes(4, "big")))


def joint_key(pq_message_key: bytes, message_key: bytes) -> tuple[bytes, bytes]:
    return pair(kdf(pq_message_key, "E2EE/1 message", message_key))


# --- section 8.3: AES-256-GCM (NIST SP 800-38D) ----------------------------------------------------------------


def gcm_seal(key: bytes, nonce: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
    ciphertext = _counter_mode(key, nonce, 2, plaintext)
    return ciphertext + _tag(key, nonce, ciphertext, associated_data)


def gcm_open(key: bytes, nonce: bytes, sealed: bytes, associated_data: bytes) -> bytes | None:
    ciphertext, tag = sealed[:-16], sealed[-16:]
    if tag != _tag(key, nonce, ciphertext, associated_data):
        return None
    return _counter_mode(key, nonce, 2, ciphertext)


def _counter_mode(key: bytes, nonce: bytes, counter: int, data: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(nonce + counter.to_bytes(4, "big"))).encryptor().update(data)


def _tag(key: bytes, nonce: bytes, ciphertext: bytes, associated_data: bytes) -> bytes:
    hash_key = int.from_bytes(Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(bytes(16)), "big")
    lengths = (8 * len(associated_data)).to_bytes(8, "big") + (8 * len(ciphertext)).to_bytes(8, "big")
    data = _whole_blocks(associated_data) + _whole_blocks(ciphertext) + lengths
    value = 0
    for at in range(0, len(data), 16):
        value = _multiply(value ^ int.from_bytes(data[at : at + 16], "big"), hash_key)
    return _counter_mode(key, nonce, 1, value.to_bytes(16, "big"))


def _whole_blocks(data: bytes) -> bytes:
    return data + bytes(-len(data) % 16)


def _multiply(one: int, other: int) -> int:
    """Multiply in GF(2^128), bits in GCM's reversed order (SP 800-38D section 6.3)."""
    product = 0
    for bit in range(127, -1, -1):
        if one >> bit & 1:
            product ^= other
        other = other >> 1 ^ (0xE1 << 120 if other & 1 else 0)
    return product


# --- section 9.2 ---------------------------------------------------------------------------------------------


def padded_length(length: int) -> int:
    """Return max(256, Padme(length + 1)), by the formula's own words."""
    length += 1
    if length <= 256:
        return 256
    exponent = length.bit_length() - 1
    unit = 1 << exponent - exponent.bit_length()
    return -(-length // unit) * unit


def pad(content: bytes) -> bytes:
    return content + b"\x80" + bytes(padded_length(len(content)) - len(content) - 1)
