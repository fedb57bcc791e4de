"""Attack: X25519 keys of low order make the shared secret a constant that the attacker knows (docs/attacks.md row 1).

Seen in vodozemac up to 0.9. Every exchange runs through `primitives.dh.exchange`, which refuses the all-zero output.
"""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey as OpenSslKey

from e2ee.errors import InvalidPublicKeyError
from e2ee.primitives import dh
from e2ee.private_keys import (
    EphemeralKeyPair,
    IdentityKeyPair,
    PreKeyPair,
    RatchetKeyPair,
    diffie_hellman,
    handshake_diffie_hellman,
)
from e2ee.wire.public_keys import EphemeralKey, IdentityKey, PreKeyPublicKey, RatchetPublicKey
from tests.wire_objects import seeded_rng

P = 2**255 - 19
ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
CANONICAL = (0, 1, *ORDER_8, P - 1)
"""All u coordinates of low order on the curve and on its twist."""

ALSO_READ_AS_THEM = (P, P + 1, *(u + 2**255 for u in (*CANONICAL, P, P + 1)))
"""Other encodings that a lenient implementation reduces to the same points."""

PRIVATE_KEYS = [bytes(32), b"\xff" * 32, *(seeded_rng(number)(32) for number in range(4))]

canonical = pytest.mark.parametrize("u", CANONICAL)


def raw(u: int) -> bytes:
    return u.to_bytes(32, "little")


@pytest.mark.parametrize("u", [*CANONICAL, *ALSO_READ_AS_THEM])
def test_a_low_order_point_is_refused_by_every_exchange(u: int) -> None:
    for private_key in PRIVATE_KEYS:
        with pytest.raises(InvalidPublicKeyError):
            dh.exchange(private_key, raw(u))


@pytest.mark.parametrize("u", [*CANONICAL, *ALSO_READ_AS_THEM])
def test_openssl_agrees_that_these_points_are_of_low_order(u: int) -> None:
    with pytest.raises(ValueError):
        X25519PrivateKey.from_private_bytes(PRIVATE_KEYS[2]).exchange(OpenSslKey.from_public_bytes(raw(u)))


@canonical
def test_a_low_order_ratchet_key_is_refused_at_the_ratchets_exchange(u: int) -> None:
    theirs = RatchetPublicKey.from_bytes(raw(u))

    with pytest.raises(InvalidPublicKeyError):
        diffie_hellman(RatchetKeyPair.generate(seeded_rng(1)), theirs)


@canonical
@pytest.mark.parametrize("ours", [IdentityKeyPair, EphemeralKeyPair, PreKeyPair])
@pytest.mark.parametrize("theirs", [IdentityKey, EphemeralKey, PreKeyPublicKey])
def test_a_low_order_key_is_refused_in_every_place_of_the_handshake(
    u: int,
    ours: type[IdentityKeyPair | EphemeralKeyPair | PreKeyPair],
    theirs: type[IdentityKey | EphemeralKey | PreKeyPublicKey],
) -> None:
    with pytest.raises(InvalidPublicKeyError):
        handshake_diffie_hellman(ours.generate(seeded_rng(1)), theirs.from_bytes(raw(u)))


@pytest.mark.parametrize("u", ALSO_READ_AS_THEM)
def test_a_low_order_point_in_another_encoding_does_not_even_enter_from_the_wire(u: int) -> None:
    for kind in (IdentityKey, EphemeralKey, PreKeyPublicKey, RatchetPublicKey):
        with pytest.raises(InvalidPublicKeyError):
            kind.from_bytes(raw(u))
