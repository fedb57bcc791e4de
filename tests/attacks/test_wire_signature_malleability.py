"""Attack: lenient Ed25519 takes several signatures for one message, or one for many (docs/attacks.md row 3).

Seen in libolm and in vodozemac's default up to 0.9. Verification here is strict, lengths included, and no signature is
ever an identifier.
"""

from dataclasses import replace

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from e2ee.errors import InvalidSignatureError
from e2ee.primitives.sign import public_key, sign
from e2ee.primitives.verify import verify
from tests import ed25519_arithmetic as curve
from tests.wire_objects import make_device, make_list, seeded_rng, sign_list

SEED = seeded_rng("malleability")(32)
KEY = public_key(SEED)
MESSAGE = b"signed bytes"
SIGNATURE = sign(SEED, MESSAGE)


def assert_refused(key: bytes, message: bytes, signature: bytes) -> None:
    with pytest.raises(InvalidSignatureError):
        verify(key, message, signature, "message")


@pytest.mark.parametrize("multiple", range(1, 15))
def test_a_signature_with_the_group_order_added_to_s_is_refused(multiple: int) -> None:
    s = int.from_bytes(SIGNATURE[32:], "little") + multiple * curve.L

    assert_refused(KEY, MESSAGE, SIGNATURE[:32] + s.to_bytes(32, "little"))


@pytest.mark.parametrize("moved", [1, 6, len(MESSAGE)])
def test_the_front_of_a_message_cannot_move_into_its_signature(moved: int) -> None:
    # libsodium sees signature and message as one string: without a check of the length, a signature over
    # "signed bytes" would pass for one over "bytes".
    assert_refused(KEY, MESSAGE[moved:], SIGNATURE + MESSAGE[:moved])


@pytest.mark.parametrize("moved", [1, 32, 64])
def test_the_end_of_a_signature_cannot_move_into_the_message(moved: int) -> None:
    assert_refused(KEY, SIGNATURE[-moved:] + MESSAGE, SIGNATURE[:-moved])


# --- Keys of small order: one signature for every message ----------------------------------------------------


def universal_forgery() -> tuple[bytes, bytes]:
    """Key and signature of the identity point: S = 0 and R = A fulfil the equation for any message."""
    identity = curve.encode(curve.IDENTITY)
    return identity, identity + bytes(32)


def test_the_universal_forgery_is_refused() -> None:
    key, signature = universal_forgery()

    for message in (b"", b"any message", MESSAGE):
        assert_refused(key, message, signature)


def test_the_universal_forgery_is_real_because_openssl_accepts_it() -> None:
    key, signature = universal_forgery()

    Ed25519PublicKey.from_public_bytes(key).verify(signature, b"any message")


def test_there_are_14_encodings_of_small_order_points() -> None:
    # Eight canonical ones; y = p and y = p + 1 for 0 and 1, and "negative zero" for the x of y = 1, y = -1.
    assert len(curve.small_order_encodings()) == 14


@pytest.mark.parametrize("key", curve.small_order_encodings(), ids=lambda raw: raw[:2].hex() + raw[-1:].hex())
def test_a_key_of_small_order_verifies_nothing(key: bytes) -> None:
    for r in curve.small_order_encodings():
        for number in range(8):
            assert_refused(key, bytes([number]), r + bytes(32))


@pytest.mark.parametrize("r", curve.small_order_encodings(), ids=lambda raw: raw[:2].hex() + raw[-1:].hex())
def test_a_small_order_r_under_an_honest_key_is_refused(r: bytes) -> None:
    # With S = k a the equation holds for R = 0 and, multiplied by the cofactor, for every R of small order.
    scalar, _ = curve.expand_seed(SEED)
    s = curve.challenge(r, KEY, MESSAGE) * scalar % curve.L

    assert_refused(KEY, MESSAGE, r + s.to_bytes(32, "little"))


# --- Mixed order: signatures on which implementations disagree -----------------------------------------------


@pytest.mark.parametrize("torsion", curve.SMALL_ORDER[1:], ids=range(1, 8))
def test_a_signature_valid_only_when_multiplied_by_the_cofactor_is_refused(torsion: curve.Point) -> None:
    key, signature = curve.sign_with_torsion(SEED, MESSAGE, of_r=torsion)

    assert key == KEY
    assert curve.holds_cofactored(key, MESSAGE, signature)
    assert_refused(key, MESSAGE, signature)
    with pytest.raises(InvalidSignature):
        Ed25519PublicKey.from_public_bytes(key).verify(signature, MESSAGE)


@pytest.mark.parametrize("torsion", curve.SMALL_ORDER[1:], ids=range(1, 8))
def test_a_key_with_a_torsion_component_passes_only_where_the_strict_equation_holds(torsion: curve.Point) -> None:
    # A mixed-order key is its owner's own making and gains nobody else anything: labels and addresses are signed too,
    # and no second key verifies the same signature, because the key is hashed into the challenge.
    for number in range(6):
        message = bytes([number])
        key, signature = curve.sign_with_torsion(SEED, message, of_key=torsion)
        challenge = curve.challenge(signature[:32], key, message)

        assert curve.holds_cofactored(key, message, signature)
        if curve.multiply(challenge % 8, torsion) == curve.IDENTITY:
            verify(key, message, signature, "message")
        else:
            assert_refused(key, message, signature)
        assert_refused(KEY, message, signature)


# --- A signature is never an identifier ----------------------------------------------------------------------


def test_two_signatures_on_one_list_do_not_make_two_lists() -> None:
    alice = make_device("alice")
    content = make_list([alice])
    signed = sign_list(content, alice.account)
    # What a malleable scheme would let anybody make: the same list with other signature bytes.
    resigned = replace(signed, signature=bytes(64))

    assert signed.unverified.hash() == resigned.unverified.hash()
    assert signed.verify(content.user_id).position == content.position
