"""Edwards25519 in slow, plain integers (RFC 8032 section 5.1), to craft signatures that no honest signer makes.

Owns: point arithmetic, the points of small order, signing with a torsion component.
Does not know about: our code. For tests only: nothing here is constant-time.
"""

import hashlib
from typing import Final

Point = tuple[int, int]

P: Final = 2**255 - 19
L: Final = 2**252 + 27742317777372353535851937790883648493
D: Final = -121665 * pow(121666, -1, P) % P
SQRT_MINUS_ONE: Final = pow(2, (P - 1) // 4, P)
IDENTITY: Final[Point] = (0, 1)


def add(one: Point, other: Point) -> Point:
    """Complete addition in affine coordinates."""
    (x1, y1), (x2, y2) = one, other
    cross = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + cross, -1, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - cross, -1, P)
    return x % P, y % P


def multiply(scalar: int, point: Point) -> Point:
    result = IDENTITY
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


def recover_x(y: int, sign: int) -> int | None:
    """Return x of the point with this y and this lowest bit, or None if there is none."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * SQRT_MINUS_ONE % P
    if (x * x - square) % P:
        return None
    return x if x & 1 == sign else (P - x) % P


def encode(point: Point) -> bytes:
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


def decode(raw: bytes) -> Point:
    value = int.from_bytes(raw, "little")
    y, sign = value & (2**255 - 1), value >> 255
    x = recover_x(y, sign)
    assert x is not None
    return x, y


BASE: Final[Point] = (recover_x(4 * pow(5, -1, P) % P, 0) or 0, 4 * pow(5, -1, P) % P)


def _point_of_order_8() -> Point:
    # L times any point leaves its torsion component; a few tries find one of full order.
    y = 2
    while True:
        x = recover_x(y, 0)
        if x is not None:
            torsion = multiply(L, (x, y))
            if multiply(4, torsion) != IDENTITY:
                return torsion
        y += 1


ORDER_8: Final = _point_of_order_8()
SMALL_ORDER: Final = tuple(multiply(factor, ORDER_8) for factor in range(8))
"""The eight points whose order divides 8; the first is the identity."""


def small_order_encodings() -> tuple[bytes, ...]:
    """Return every 32-byte string that a lenient decoder reads as a point of small order, canonical ones first."""
    canonical = [encode(point) for point in SMALL_ORDER]
    lenient = [
        (y | sign << 255).to_bytes(32, "little")
        for _, reduced in SMALL_ORDER
        for y in (reduced, reduced + P)
        if y < 2**255
        for sign in (0, 1)
    ]
    return tuple(dict.fromkeys(canonical + lenient))


def expand_seed(seed: bytes) -> tuple[int, bytes]:
    """Return the secret scalar and the prefix of a 32-byte seed."""
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little") & (2**254 - 8) | 2**254
    return scalar, digest[32:]


def challenge(r: bytes, public_key: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + public_key + message).digest(), "little") % L


def sign_with_torsion(
    seed: bytes, message: bytes, *, of_key: Point = IDENTITY, of_r: Point = IDENTITY
) -> tuple[bytes, bytes]:
    """Sign with small-order points added to the public key and to R; return (public key, signature).

    With both left out this is RFC 8032 signing. Otherwise the cofactored equation holds and the strict one need not.
    """
    scalar, prefix = expand_seed(seed)
    public_key = encode(add(multiply(scalar, BASE), of_key))
    nonce = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % L
    r = encode(add(multiply(nonce, BASE), of_r))
    s = (nonce + challenge(r, public_key, message) * scalar) % L
    return public_key, r + s.to_bytes(32, "little")


def holds_cofactored(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Say whether 8 S B = 8 R + 8 k A: the lenient equation of RFC 8032."""
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    right = add(decode(r), multiply(challenge(r, public_key, message), decode(public_key)))
    return multiply(8 * s, BASE) == multiply(8, right)
