"""AES-256-GCM: agreement with a second implementation, and nothing but the exact inputs opens."""

import pytest
from hypothesis import given, strategies as st
from nacl.bindings import crypto_aead_aes256gcm_encrypt

from e2ee.errors import AuthenticationError
from e2ee.primitives import aead
from tests.wire_objects import seeded_rng

_rng = seeded_rng("aead")
KEY, NONCE, PLAINTEXT, AAD = _rng(32), _rng(12), _rng(48), _rng(40)
SEALED = aead.seal(KEY, NONCE, PLAINTEXT, AAD)


def test_a_sealed_message_opens_and_is_16_bytes_longer() -> None:
    assert aead.unseal(KEY, NONCE, SEALED, AAD) == PLAINTEXT
    assert len(SEALED) == len(PLAINTEXT) + aead.TAG_LENGTH == len(PLAINTEXT) + 16


@given(plaintext=st.binary(max_size=300), aad=st.binary(max_size=100))
def test_libsodium_seals_to_the_same_bytes(plaintext: bytes, aad: bytes) -> None:
    assert aead.seal(KEY, NONCE, plaintext, aad) == crypto_aead_aes256gcm_encrypt(plaintext, aad, NONCE, KEY)
    assert aead.unseal(KEY, NONCE, aead.seal(KEY, NONCE, plaintext, aad), aad) == plaintext


@pytest.mark.parametrize("which", ["key", "nonce", "sealed", "aad"])
def test_every_flipped_byte_of_every_input_is_refused(which: str) -> None:
    inputs = {"key": KEY, "nonce": NONCE, "sealed": SEALED, "aad": AAD}
    for at in range(len(inputs[which])):
        for difference in (0x01, 0x80, 0xFF):
            changed = bytearray(inputs[which])
            changed[at] ^= difference
            with pytest.raises(AuthenticationError):
                aead.unseal(**(inputs | {which: bytes(changed)}))


@pytest.mark.parametrize("length", [*range(aead.TAG_LENGTH), len(SEALED) - 1])
def test_a_truncated_message_is_refused(length: int) -> None:
    with pytest.raises(AuthenticationError):
        aead.unseal(KEY, NONCE, SEALED[:length], AAD)


def test_an_extended_message_or_associated_data_is_refused() -> None:
    for sealed, aad in ((SEALED + b"\0", AAD), (SEALED, AAD + b"\0"), (SEALED, AAD[:-1]), (SEALED, b"")):
        with pytest.raises(AuthenticationError):
            aead.unseal(KEY, NONCE, sealed, aad)


@pytest.mark.parametrize("length", [0, 4, 7])
def test_a_nonce_too_short_for_the_library_is_one_and_the_same_error(length: int) -> None:
    with pytest.raises(AuthenticationError):
        aead.unseal(KEY, bytes(length), SEALED, AAD)


def test_all_refusals_look_alike() -> None:
    # Wrong key, wrong tag, too short: one text and no context to tell them apart.
    texts = set()
    for key, sealed in ((bytes(32), SEALED), (KEY, SEALED[:-1] + b"x"), (KEY, b"")):
        with pytest.raises(AuthenticationError) as refused:
            aead.unseal(key, NONCE, sealed, AAD)
        assert refused.value.__suppress_context__
        texts.add(str(refused.value))
    assert len(texts) == 1
