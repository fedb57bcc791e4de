"""Signatures that no honest signer makes, for primitives.json: small-order and mixed-order keys and R, large S.

    python -m tests.vectors.crafted_signatures        writes the record beside the generator, always the same bytes

After Chalkias, Garillot and Nikolaenko, Taming the Many EdDSAs (2020), whose cases 0 to 11 are all here, with keys of
our own. The generator of the vectors reads the record, because the package has no curve arithmetic.

Owns: how each of them is made.
Does not know about: the e2ee package.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, final

from tests import ed25519_arithmetic as curve

RECORD: Final = Path(__file__).parents[2] / "e2ee/cli/vectors/crafted_signatures.json"

Signature = dict[str, str]
"""public_key, message and signature, in hex."""


@final
@dataclass(frozen=True)
class Half:
    """The point [scalar]B + torsion: a public key, or the R of a signature."""

    scalar: int = 0
    torsion: curve.Point = curve.IDENTITY
    spelling: bytes = b""
    """Another encoding of the point than the canonical one."""

    @property
    def canonical(self) -> bytes:
        return curve.encode(curve.add(curve.multiply(self.scalar, curve.BASE), self.torsion))

    @property
    def encoded(self) -> bytes:
        return self.spelling or self.canonical


def as_it_stands(half: Half) -> bytes:
    return half.encoded


def in_canonical_form(half: Half) -> bytes:
    return half.canonical


def craft(key: Half, r: Half, *, strict: bool = True, hashed: Callable[[Half], bytes] = as_it_stands) -> Signature:
    """Sign the first message for which the equation without cofactor holds, or does not; with cofactor it always does.

    `hashed` is how the verifier that is to be deceived writes points where it hashes them.
    """
    for number in count():
        message = f"crafted {number}".encode()
        challenge = curve.challenge(hashed(r), hashed(key), message)
        left = curve.add(curve.multiply(challenge % 8, key.torsion), r.torsion)
        if (left == curve.IDENTITY) is strict:
            s = (r.scalar + challenge * key.scalar) % curve.L
            signature = r.encoded + s.to_bytes(32, "little")
            return {"public_key": key.encoded.hex(), "message": message.hex(), "signature": signature.hex()}
    raise AssertionError("some message fits")


def _scalar(name: str) -> int:
    return int.from_bytes(hashlib.shake_256(f"E2EE/1 vectors: crafted {name}".encode()).digest(64), "little") % curve.L


_TORSION: Final = curve.ORDER_8
_ORDER_2: Final = curve.multiply(4, _TORSION)
_KEY, _R = Half(_scalar("key")), Half(_scalar("R"))
_MIXED_KEY, _MIXED_R = Half(_KEY.scalar, _TORSION), Half(_R.scalar, _TORSION)
_SMALL: Final = Half(0, _TORSION)


def accepted() -> Iterator[tuple[str, Signature]]:
    """Yield what strict verification accepts: nothing is wrong with a component of small order as such."""
    yield "key and R of mixed order, and the equation holds (EdDSAs case 3)", craft(_MIXED_KEY, _MIXED_R)
    yield "a key of mixed order, and the equation holds", craft(_MIXED_KEY, _R)


def cofactored() -> Iterator[tuple[str, Signature]]:
    """Yield what only the equation with cofactor accepts."""
    yield "key and R of mixed order (EdDSAs case 4)", craft(_MIXED_KEY, _MIXED_R, strict=False)
    yield "a key of mixed order (EdDSAs case 5)", craft(_MIXED_KEY, _R, strict=False)
    for factor, order in ((1, 8), (2, 4), (4, 2)):
        torsion = curve.multiply(factor, _TORSION)
        yield f"R has a component of order {order}", craft(_KEY, Half(_R.scalar, torsion), strict=False)


def weak() -> Iterator[tuple[str, Signature]]:
    """Yield what a verifier accepts that lacks one of rules 2 to 4, or reduces encodings before it hashes them."""
    yield "key and R of small order, S is 0 (EdDSAs case 0)", craft(_SMALL, _SMALL)
    yield "a key of small order, R of mixed order (EdDSAs case 1)", craft(_SMALL, _MIXED_R)
    yield "a key of mixed order, R of small order (EdDSAs case 2)", craft(_MIXED_KEY, _SMALL)
    yield "the group order added to S (EdDSAs case 6)", _larger(craft(_KEY, _R), 1)
    yield "14 times the group order added to S (EdDSAs case 7)", _larger(craft(_KEY, _R), 14)
    identity = Half(spelling=(curve.P + 1).to_bytes(32, "little"))
    for case, hashed in ((8, in_canonical_form), (9, as_it_stands)):
        comment = f"R is the identity spelled p + 1, hashed {_words(hashed)} (EdDSAs case {case})"
        yield comment, craft(_MIXED_KEY, identity, hashed=hashed)
    order_2 = Half(0, _ORDER_2, bytes.fromhex("ec" + "ff" * 31))
    for case, hashed in ((10, in_canonical_form), (11, as_it_stands)):
        comment = f"the key is of order 2, spelled with its sign bit, hashed {_words(hashed)} (EdDSAs case {case})"
        yield comment, craft(order_2, Half(_R.scalar, _ORDER_2), hashed=hashed)
    for raw in curve.small_order_encodings():
        yield f"a key of small order: {_short(raw)}", craft(Half(0, _leniently(raw), raw), Half())
    for raw in curve.small_order_encodings():
        small = Half(0, _leniently(raw), raw)
        yield f"R of small order: {_short(raw)}", craft(_KEY, small, strict=small.torsion == curve.IDENTITY)


def _larger(signature: Signature, multiple: int) -> Signature:
    raw = bytes.fromhex(signature["signature"])
    s = int.from_bytes(raw[32:], "little") + multiple * curve.L
    return {**signature, "signature": (raw[:32] + s.to_bytes(32, "little")).hex()}


def _leniently(raw: bytes) -> curve.Point:
    x, y = curve.decode(raw)
    return x, y % curve.P


def _words(function: Callable[[Half], bytes]) -> str:
    return function.__name__.replace("_", " ")


def _short(raw: bytes) -> str:
    return f"{raw[:2].hex()}..{raw[-1:].hex()}"


def record() -> bytes:
    """Return the record: three groups, each from comment to signature."""
    groups = {"accepted": accepted(), "cofactored": cofactored(), "weak": weak()}
    return (json.dumps({name: dict(group) for name, group in groups.items()}, indent=2) + "\n").encode()


if __name__ == "__main__":
    RECORD.write_bytes(record())
