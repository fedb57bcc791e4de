"""The functions that everything else is built from (protocol.md sections 1.5, 2 and 3.1).

Owns: the operations of primitives.json: where to look first when nothing fits.
Does not know about: cases.
"""

from e2ee.cli.vectors.model import Fields, JsonObject, Operation, VectorFile
from e2ee.cli.vectors.refusals import decoding
from e2ee.cli.vectors.schema import hex_bytes, integer, record, text
from e2ee.primitives import kdf, kem, sign
from e2ee.primitives.verify import verify
from e2ee.private_keys import RatchetKeyPair, SeedBytes32, diffie_hellman
from e2ee.wire.public_keys import RatchetPublicKey


def _hkdf(fields: Fields) -> JsonObject:
    salt, key_material, info = fields.hex("salt"), fields.hex("ikm"), fields.hex("info")
    return {"okm": kdf.hkdf_sha512(salt, key_material, info, fields.number("length")).hex()}


def _kdf(fields: Fields) -> JsonObject:
    return {"output": kdf.kdf(fields.hex("key"), fields.text("label").encode("ascii"), fields.hex("data")).hex()}


def _mac(fields: Fields) -> JsonObject:
    return {"tag": kdf.mac(fields.hex("key"), fields.text("label").encode("ascii"), fields.hex("data")).hex()}


def _x25519(fields: Fields) -> JsonObject:
    pair = RatchetKeyPair(SeedBytes32(fields.hex("private_key")))
    with decoding():
        theirs = RatchetPublicKey.from_bytes(fields.hex("their_public_key"))
    return {"public_key": str(pair.public), "shared_secret": diffie_hellman(pair, theirs).expose().hex()}


def _sign(fields: Fields) -> JsonObject:
    seed = fields.hex("seed")
    return {"public_key": sign.public_key(seed).hex(), "signature": sign.sign(seed, fields.hex("message")).hex()}


def _verify(fields: Fields) -> JsonObject:
    verify(fields.hex("public_key"), fields.hex("message"), fields.hex("signature"), "message")
    return {}


def _decapsulate(fields: Fields) -> JsonObject:
    seed, ciphertext = fields.hex("seed"), fields.hex("ciphertext")
    return {
        "public_key": kem.public_key_1024(seed).hex(),
        "shared_secret": kem.decapsulate_1024(seed, ciphertext).hex(),
        "rejected_secret": rejected_secret(seed).hex(),
    }


REJECTED_CIPHERTEXT = b"\x5a" * 1568
"""Nobody encapsulated it: its decapsulation shows the half z of a seed, which a right ciphertext does not use."""


def rejected_secret(seed: bytes) -> bytes:
    """Return Decaps(1,568 times 0x5a): the implicit rejection of FIPS 203 section 6.3."""
    return kem.decapsulate_1024(seed, REJECTED_CIPHERTEXT)


HKDF = Operation(
    "HkdfSha512",
    "HKDF with SHA-512 (RFC 5869)",
    record(salt=hex_bytes(), ikm=hex_bytes(), info=hex_bytes(), length=integer(16_320)),
    record(okm=hex_bytes()),
    _hkdf,
)
KDF = Operation(
    "Kdf",
    "kdf(key, label, data): keyed BLAKE2b, 64 bytes",
    record(key=hex_bytes(32), label=text(), data=hex_bytes()),
    record(output=hex_bytes(64)),
    _kdf,
)
MAC = Operation(
    "Mac",
    "mac(key, label, data): keyed BLAKE2b, 32 bytes",
    record(key=hex_bytes(32), label=text(), data=hex_bytes()),
    record(tag=hex_bytes(32)),
    _mac,
)
X25519 = Operation(
    "X25519",
    "Diffie-Hellman with a key from the wire: canonical, and no all-zero output",
    record(private_key=hex_bytes(32), their_public_key=hex_bytes()),
    record(public_key=hex_bytes(32), shared_secret=hex_bytes(32)),
    _x25519,
)
ED25519_SIGN = Operation(
    "Ed25519Sign",
    "Ed25519 signatures (RFC 8032)",
    record(seed=hex_bytes(32), message=hex_bytes()),
    record(public_key=hex_bytes(32), signature=hex_bytes(64)),
    _sign,
)
ED25519_VERIFY = Operation(
    "Ed25519Verify",
    "Strict verification",
    record(public_key=hex_bytes(), message=hex_bytes(), signature=hex_bytes()),
    record(),
    _verify,
)
KEM_DECAPSULATE = Operation(
    "MlKem1024Decapsulate",
    "ML-KEM-1024 from a seed; rejected_secret is the decapsulation of 1,568 bytes 0x5a",
    record(seed=hex_bytes(64), ciphertext=hex_bytes()),
    record(public_key=hex_bytes(1568), shared_secret=hex_bytes(32), rejected_secret=hex_bytes(32)),
    _decapsulate,
    ("rejected_secret",),
)

FILE = VectorFile(
    "primitives",
    ("Key derivation, Diffie-Hellman, signatures, KEM (protocol.md sections 1.5, 2 and 3.1).",),
    (HKDF, KDF, MAC, X25519, ED25519_SIGN, ED25519_VERIFY, KEM_DECAPSULATE),
)
