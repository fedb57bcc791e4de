"""Cases of primitives.json."""

from collections.abc import Iterator
from typing import Final

from e2ee.cli.vectors.cases.crafted_signatures import crafted_signatures
from e2ee.cli.vectors.cases.mutations import LOW_ORDER, P25519, flip, invalid, non_canonical_keys, valid
from e2ee.cli.vectors.drawn import drawn, encapsulation
from e2ee.cli.vectors.model import Case, CaseGroup
from e2ee.cli.vectors.operations import primitives
from e2ee.primitives import dh, kem, sign

_GROUP_ORDER: Final = (1 << 252) + 27742317777372353535851937790883648493
_ONE: Final = b"\x01" + bytes(31)
_KEM_SEED: Final = drawn("mlkem1024 seed", 64)
KEM_KEY: Final = kem.public_key_1024(_KEM_SEED)


def groups() -> Iterator[CaseGroup]:
    yield CaseGroup(primitives.HKDF, "extract, then expand", tuple(_hkdf()))
    yield CaseGroup(primitives.KDF, "symmetric steps", tuple(_symmetric("kdf")))
    yield CaseGroup(primitives.MAC, "authenticators", tuple(_symmetric("mac")))
    yield CaseGroup(primitives.X25519, "Diffie-Hellman", tuple(_x25519()))
    yield CaseGroup(primitives.ED25519_SIGN, "signatures", tuple(_sign()))
    yield CaseGroup(primitives.ED25519_VERIFY, "strict verification", tuple(_verify()))
    yield CaseGroup(primitives.KEM_DECAPSULATE, "ML-KEM-1024", tuple(_decapsulate()))


def _hkdf() -> Iterator[Case]:
    salt, key_material = drawn("hkdf salt", 32), drawn("hkdf ikm", 32)
    for comment, each_salt, info, length in (
        ("a root step", salt, b"E2EE/1 root", 64),
        ("a handshake's salt of 64 zero bytes", bytes(64), b"E2EE/1 PQXDH X25519 ML-KEM-1024 SHA-512", 64),
        ("two blocks: a post-quantum root", salt, b"E2EE/1 PQ root" + bytes(4), 128),
        ("a cut block", salt, b"E2EE/1 root", 32),
        ("no info", salt, b"", 64),
    ):
        given = {"salt": each_salt.hex(), "ikm": key_material.hex(), "info": info.hex(), "length": length}
        yield valid(comment, given)


def _symmetric(what: str) -> Iterator[Case]:
    key = drawn(f"{what} key", 32)
    for comment, label, data in (
        ("a chain step", "E2EE/1 chain", b""),
        ("with data", "E2EE/1 message", drawn(f"{what} data", 32)),
        ("the label's length keeps label and data apart", "E2EE/1 chai", b"n"),
        ("more than one block", "E2EE/1 PQ ek", drawn(f"{what} long", 1188)),
        ("no label", "", b"data"),
    ):
        yield valid(comment, {"key": key.hex(), "label": label, "data": data.hex()})


def _x25519() -> Iterator[Case]:
    private, theirs = drawn("x25519 private", 32), dh.public_key(drawn("x25519 theirs", 32))

    def given(key: bytes) -> dict[str, str]:
        return {"private_key": private.hex(), "their_public_key": key.hex()}

    yield valid("a key of the other side", given(theirs))
    yield valid("another", given(dh.public_key(drawn("x25519 theirs 2", 32))))
    yield valid("the base point", given(b"\x09" + bytes(31)), "Boundary")
    yield valid("a point of the twist", given(b"\x02" + bytes(31)), "Boundary")
    yield valid("u is p - 2", given((P25519 - 2).to_bytes(32, "little")), "Boundary")
    for key in LOW_ORDER:
        yield invalid("a point of low order", "dh", given(key), "LowOrderKey")
    for comment, key in non_canonical_keys(theirs):
        yield invalid(comment, "decode", given(key), "NonCanonicalKey")
    for low in LOW_ORDER[:2]:
        value = (int.from_bytes(low, "little") + P25519).to_bytes(32, "little")
        yield invalid("a point of low order, spelled with p added", "decode", given(value), "NonCanonicalKey")
    yield invalid("31 bytes", "decode", given(theirs[:-1]), "Truncated")
    yield invalid("33 bytes", "decode", given(theirs + b"\0"), "TrailingBytes")


def _sign() -> Iterator[Case]:
    for length in (0, 1, 64, 500):
        given = {"seed": drawn("ed25519 seed", 32).hex(), "message": drawn(f"ed25519 {length}", length).hex()}
        yield valid(f"a message of {length} bytes", given)


def _verify() -> Iterator[Case]:
    seed, message = drawn("ed25519 seed", 32), drawn("ed25519 message", 40)
    key, signature = sign.public_key(seed), sign.sign(seed, message)
    r, s = signature[:32], signature[32:]

    def given(public_key: bytes, signed: bytes, of: bytes) -> dict[str, str]:
        return {"public_key": public_key.hex(), "message": of.hex(), "signature": signed.hex()}

    yield valid("a signature", given(key, signature, message))
    yield valid("no message", given(key, sign.sign(seed, b""), b""), "Boundary")
    larger = (int.from_bytes(s, "little") + _GROUP_ORDER).to_bytes(32, "little")
    weak = {
        "S is not below the group order": (key, r + larger),
        "the key is the identity: verifies leniently for every message": (_ONE, _ONE + bytes(32)),
        "the key is the identity, spelled with its sign bit": (flip(_ONE, 31, 0x80), _ONE + bytes(32)),
        "the key is the identity, spelled p + 1": ((P25519 + 1).to_bytes(32, "little"), _ONE + bytes(32)),
        "the key is a point of order 2": ((P25519 - 1).to_bytes(32, "little"), _ONE + bytes(32)),
        "R is the identity": (key, _ONE + s),
    }
    for comment, (public_key, signed) in weak.items():
        yield invalid(comment, "signature", given(public_key, signed, message), "WeakSignature")
    for comment, signed in (
        ("a bit of R is turned", flip(signature, 0)),
        ("a bit of S is turned", flip(signature, 32)),
        ("63 bytes", signature[:-1]),
        ("65 bytes", signature + b"\0"),
        ("no signature", b""),
    ):
        yield invalid(comment, "signature", given(key, signed, message), "ModifiedSignature")
    # A verifier that takes signature and message as one string and no lengths accepts this one.
    moved = given(key, sign.sign(seed, b"x" + message) + b"x", message)
    yield invalid("the first byte of the message moved into the signature", "signature", moved, "ModifiedSignature")
    yield invalid("another message", "signature", given(key, signature, message[:-1]), "SignedOtherwise")
    other = sign.public_key(drawn("ed25519 other seed", 32))
    yield invalid("another key", "signature", given(other, signature, message), "WrongSigner")
    yield invalid("a key of 31 bytes", "signature", given(key[:-1], signature, message), "Truncated")
    yield from crafted_signatures()


def _decapsulate() -> Iterator[Case]:
    seed = _KEM_SEED
    _, ciphertext = encapsulation(KEM_KEY)
    yield valid("a recorded encapsulation", {"seed": seed.hex(), "ciphertext": ciphertext.hex()})
    _, second = encapsulation(KEM_KEY, 1)
    yield valid("another one of the same key", {"seed": seed.hex(), "ciphertext": second.hex()})
    changed = {"seed": seed.hex(), "ciphertext": flip(ciphertext, 0).hex()}
    yield valid("a changed ciphertext gives another secret", changed, "ImplicitRejection")
    for comment, cut, flag in (
        ("one byte is missing", ciphertext[:-1], "Truncated"),
        ("one byte more", ciphertext + b"\0", "TrailingBytes"),
    ):
        yield invalid(comment, "decode", {"seed": seed.hex(), "ciphertext": cut.hex()}, flag)
