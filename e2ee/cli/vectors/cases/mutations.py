"""Small ways to break bytes, and short names for making cases.

Owns: cutting, flipping, replacing; points of low order.
Does not know about: formats.
"""

from typing import Final

from e2ee.cli.vectors.model import Case, JsonObject
from e2ee.cli.vectors.refusals import Layer

P25519: Final = (1 << 255) - 19

LOW_ORDER: Final = tuple(
    bytes.fromhex(each)
    for each in (
        "00" * 32,
        "01" + "00" * 31,
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ec" + "ff" * 30 + "7f",
    )
)
"""All canonical X25519 keys of low order (protocol.md section 2)."""


def valid(comment: str, given: JsonObject, *flags: str) -> Case:
    return Case(comment, given, flags or ("Normal",))


def invalid(comment: str, fails_at: Layer, given: JsonObject, *flags: str) -> Case:
    return Case(comment, given, flags, fails_at)


def flip(data: bytes, at: int, mask: int = 1) -> bytes:
    """Return the bytes with some bits of one byte turned; a negative position counts from the end."""
    changed = bytearray(data)
    changed[at] ^= mask
    return bytes(changed)


def put(data: bytes, at: int, piece: bytes) -> bytes:
    """Return the bytes with a piece of them replaced."""
    return data[:at] + piece + data[at + len(piece) :]


def non_canonical_keys(key: bytes) -> tuple[tuple[str, bytes], ...]:
    """Return spellings of X25519 keys that must be refused: bit 255, p, and the largest of 255 bits."""
    return (
        ("bit 255 is set", flip(key, 31, 0x80)),
        ("u is p", P25519.to_bytes(32, "little")),
        ("u is 2^255 - 1", ((1 << 255) - 1).to_bytes(32, "little")),
    )
