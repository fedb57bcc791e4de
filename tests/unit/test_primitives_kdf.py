"""Key derivation against independent implementations and published answers."""

from hashlib import blake2b

import pytest
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, strategies as st
from nacl.bindings import crypto_generichash_blake2b_salt_personal

from e2ee.primitives import kdf

KAT_KEY = bytes(range(64))


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (
            b"",  # hashed: the length byte of the empty label, 00
            "961f6dd1e4dd30f63901690c512e78e4b45e4742ed197c3c5e45c549fd25f2e4"
            "187b0bc9fe30492b16b0d0bc4ef9b0f34c7003fac09a5ef1532e69430234cebd",
        ),
        (
            b"\x01",  # hashed: 00 01
            "da2cfbe2d8409a0f38026113884f84b50156371ae304c4430173d08a99d9fb1b"
            "983164a3770706d537f49e0c916d9f32b95cc37a95b99d857436f0232c88a965",
        ),
    ],
)
def test_published_keyed_blake2b_answers(data: bytes, digest: str) -> None:
    # The known answers of the BLAKE2 authors for key 00..3f and input 00, 00 01.
    assert kdf.kdf(KAT_KEY, b"", data).hex() == digest


def test_rfc_7693_appendix_a() -> None:
    # Unkeyed, so not through `kdf`: it shows that the library's BLAKE2b is that of the RFC.
    assert blake2b(b"abc").hexdigest() == (
        "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
        "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923"
    )


@given(
    key=st.binary(min_size=1, max_size=64),
    label=st.binary(max_size=255),
    data=st.binary(max_size=300),
)
def test_libsodium_computes_the_same_symmetric_steps(key: bytes, label: bytes, data: bytes) -> None:
    hashed = bytes([len(label)]) + label + data

    assert kdf.kdf(key, label, data) == crypto_generichash_blake2b_salt_personal(hashed, 64, key)
    assert kdf.mac(key, label, data) == crypto_generichash_blake2b_salt_personal(hashed, 32, key)


@given(
    salt=st.binary(max_size=200),
    secret=st.binary(max_size=200),
    info=st.binary(max_size=100),
    length=st.integers(1, 400),
)
def test_openssl_computes_the_same_hkdf(salt: bytes, secret: bytes, info: bytes, length: int) -> None:
    theirs = HKDF(algorithm=SHA512(), length=length, salt=salt or None, info=info)

    assert kdf.hkdf_sha512(salt, secret, info, length) == theirs.derive(secret)


def test_hkdf_gives_up_to_255_blocks_and_no_more() -> None:
    longest = 255 * 64
    theirs = HKDF(algorithm=SHA512(), length=longest, salt=None, info=b"info")

    assert kdf.hkdf_sha512(b"", b"secret", b"info", longest) == theirs.derive(b"secret")
    with pytest.raises(ValueError):
        kdf.hkdf_sha512(b"", b"secret", b"info", longest + 1)


def test_an_empty_salt_is_64_zero_bytes() -> None:
    # RFC 5869 section 2.2; the handshake names the zero bytes.
    assert kdf.hkdf_sha512(b"", b"secret", b"info", 64) == kdf.hkdf_sha512(bytes(64), b"secret", b"info", 64)


@given(
    first=st.tuples(st.binary(max_size=20), st.binary(max_size=20)),
    second=st.tuples(st.binary(max_size=20), st.binary(max_size=20)),
)
def test_label_and_data_never_run_into_each_other(first: tuple[bytes, bytes], second: tuple[bytes, bytes]) -> None:
    assert (kdf.kdf(bytes(32), *first) == kdf.kdf(bytes(32), *second)) == (first == second)


def test_moving_a_byte_from_the_label_to_the_data_changes_the_output() -> None:
    assert kdf.kdf(bytes(32), b"label1", b"") != kdf.kdf(bytes(32), b"label", b"1")


def test_a_mac_is_no_prefix_of_the_key_step() -> None:
    # BLAKE2b binds the digest length, so a published mac says nothing about a derived key of the same label.
    assert not kdf.kdf(bytes(32), b"label", b"data").startswith(kdf.mac(bytes(32), b"label", b"data"))


@pytest.mark.parametrize("key", [bytes(65), bytes(100)])
def test_a_key_that_blake2b_cannot_hold_is_a_bug_of_the_caller(key: bytes) -> None:
    with pytest.raises(ValueError):
        kdf.kdf(key, b"label")


def test_a_label_longer_than_its_length_byte_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError):
        kdf.kdf(bytes(32), bytes(256))


def test_sha256_of_abc() -> None:
    assert kdf.sha256(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
