"""X25519 public keys that no honest device makes, from the slow arithmetic of `ed25519_arithmetic`.

Owns: the canonical low-order u-coordinates, and keys shifted by a torsion point.
Does not know about: our code.
"""

from typing import Final

from tests.ed25519_arithmetic import ORDER_8, SMALL_ORDER, P, Point, add, recover_x


def to_u(point: Point) -> bytes:
    """Map an Edwards point to its Montgomery u-coordinate (RFC 7748 section 4.1); the identity goes to 0."""
    _, y = point
    return ((1 + y) * pow(1 - y, -1, P) % P if y != 1 else 0).to_bytes(32, "little")


def shifted_by_torsion(public_key: bytes) -> bytes:
    """Return the u-coordinate of public key + a point of order 8: another key with the same shared secrets."""
    u = int.from_bytes(public_key, "little")
    y = (u - 1) * pow(u + 1, -1, P) % P
    x = recover_x(y, 0)
    assert x is not None
    return to_u(add((x, y), ORDER_8))


LOW_ORDER: Final = tuple(dict.fromkeys([*(to_u(point) for point in SMALL_ORDER), (P - 1).to_bytes(32, "little")]))
"""Every canonical u-coordinate of low order: 0, 1, two of order 8, and -1, which lies on the twist."""
