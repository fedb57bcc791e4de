"""X25519: RFC 7748 answers, agreement with a second implementation. Hostile keys are in tests/attacks."""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from e2ee.errors import InvalidPublicKeyError
from e2ee.primitives import dh
from tests.wire_objects import seeded_rng

BASE_POINT = (9).to_bytes(32, "little")
PRIVATE_KEYS = [bytes(32), b"\xff" * 32, *(seeded_rng(number)(32) for number in range(20))]


def test_rfc_7748_section_5_2_first_vector() -> None:
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    u = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")

    assert dh.exchange(scalar, u).hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"


def test_rfc_7748_section_5_2_iterated_1000_times() -> None:
    k = u = BASE_POINT
    for _ in range(1_000):
        k, u = dh.exchange(k, u), k

    assert k.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


@pytest.mark.parametrize("private_key", PRIVATE_KEYS, ids=lambda key: key[:4].hex())
def test_openssl_computes_the_same_key_and_the_same_secret(private_key: bytes) -> None:
    theirs = X25519PrivateKey.from_private_bytes(private_key)
    peer = dh.public_key(seeded_rng("peer")(32))

    assert dh.public_key(private_key) == theirs.public_key().public_bytes_raw()
    assert dh.public_key(private_key) == dh.exchange(private_key, BASE_POINT)
    assert dh.exchange(private_key, peer) == theirs.exchange(X25519PublicKey.from_public_bytes(peer))


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_key_of_another_length_is_refused_before_it_is_read(length: int) -> None:
    # libsodium's binding takes a bare pointer: without the check it would read beyond a short string.
    with pytest.raises(InvalidPublicKeyError):
        dh.exchange(bytes(32), bytes(length))
    with pytest.raises(ValueError, match="32 bytes"):
        dh.exchange(bytes(length), BASE_POINT)
    with pytest.raises(ValueError, match="32 bytes"):
        dh.public_key(bytes(length))
