"""Ed25519: agreement with a second implementation, exact lengths. Hostile signatures are in tests/attacks."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from e2ee.errors import InvalidSignatureError
from e2ee.primitives.sign import public_key, sign
from e2ee.primitives.verify import verify
from tests.ed25519_arithmetic import sign_with_torsion
from tests.wire_objects import seeded_rng

SEEDS = [seeded_rng(number)(32) for number in range(8)]


@pytest.mark.parametrize("seed", [bytes(32), b"\xff" * 32, *SEEDS], ids=lambda seed: seed[:4].hex())
def test_openssl_makes_the_same_key_and_the_same_signature(seed: bytes) -> None:
    theirs = Ed25519PrivateKey.from_private_bytes(seed)

    assert public_key(seed) == theirs.public_key().public_bytes_raw()
    for message in (b"", b"a", seed * 100):
        assert sign(seed, message) == theirs.sign(message)
        verify(public_key(seed), message, sign(seed, message), "message")
        theirs.public_key().verify(sign(seed, message), message)


def test_plain_integer_arithmetic_makes_the_same_signature() -> None:
    assert sign_with_torsion(SEEDS[0], b"message") == (public_key(SEEDS[0]), sign(SEEDS[0], b"message"))


def test_rfc_8032_test_1() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    expected = (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
        "655141438e7a100b"
    )

    assert public_key(seed).hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert sign(seed, b"").hex() == expected


def test_a_flipped_bit_in_signature_message_or_key_is_refused() -> None:
    key, message = public_key(SEEDS[0]), b"signed message"
    signature = sign(SEEDS[0], message)

    for number in range(8 * 64):
        with pytest.raises(InvalidSignatureError):
            verify(key, message, flipped(signature, number), "message")
    for number in range(8 * len(message)):
        with pytest.raises(InvalidSignatureError):
            verify(key, flipped(message, number), signature, "message")
    for number in range(8 * 32):
        with pytest.raises(InvalidSignatureError):
            verify(flipped(key, number), message, signature, "message")


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_key_of_another_length_verifies_nothing(length: int) -> None:
    with pytest.raises(InvalidSignatureError):
        verify(public_key(SEEDS[0])[:length].ljust(length, b"\0"), b"m", sign(SEEDS[0], b"m"), "message")


@pytest.mark.parametrize("length", [0, 1, 32, 63, 65, 128])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidSignatureError):
        verify(public_key(SEEDS[0]), b"m", sign(SEEDS[0], b"m")[:length].ljust(length, b"\0"), "message")


def test_the_error_names_the_object_and_shows_none_of_it() -> None:
    with pytest.raises(InvalidSignatureError) as refused:
        verify(public_key(SEEDS[0]), b"canary", bytes(64), "device list")

    assert "device list" in str(refused.value)
    assert "canary" not in str(refused.value)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
