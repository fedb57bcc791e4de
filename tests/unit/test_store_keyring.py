"""The header of a store: the data key comes back under the right passphrase or key, and under nothing else."""

import hashlib
import pickle

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, strategies as st
from nacl.pwhash import argon2id

from e2ee.errors import CorruptStateError, StateError, StoreVersionError, WrongPassphraseError
from e2ee.primitives.password import DEFAULT_COST, Argon2Cost, derive_key
from e2ee.stores.sqlite_keyring import DataKey, Opener, StoreKey, opener, unwrap, wrap

CHEAP = Argon2Cost(memory_kib=8, iterations=1, lanes=1)
DATA_KEY = DataKey(bytes(range(32)))
STORE_KEY = StoreKey(b"k" * 32)


def with_checksum(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()[:8]


def test_argon2id_agrees_with_libsodium() -> None:
    ours = derive_key(b"passphrase", b"s" * 16, Argon2Cost(memory_kib=64, iterations=3, lanes=1))
    assert ours == argon2id.kdf(32, b"passphrase", b"s" * 16, opslimit=3, memlimit=64 * 1024)


def test_default_cost_is_the_second_recommendation_of_rfc_9106() -> None:
    assert Argon2Cost(memory_kib=65_536, iterations=3, lanes=4) == DEFAULT_COST
    assert DEFAULT_COST.is_allowed()


@given(st.text(alphabet=st.characters(), min_size=1))
def test_any_passphrase_opens_what_it_sealed(passphrase: str) -> None:
    assert unwrap(wrap(DATA_KEY, passphrase, CHEAP), passphrase) == DATA_KEY


def test_a_key_opens_what_it_sealed() -> None:
    assert unwrap(wrap(DATA_KEY, STORE_KEY, CHEAP), STORE_KEY) == DATA_KEY


def test_headers_are_as_documented() -> None:
    """Written out once more with the library alone: what is on the disks of users must stay readable."""

    def wrapping_key(key: bytes) -> bytes:
        return hashlib.blake2b(b"\x11E2EE/1 store wrap", key=key).digest()[:32]

    header = wrap(DATA_KEY, STORE_KEY, CHEAP)
    assert header[:12] == b"E2EE store\1\2"
    sealed = AESGCM(wrapping_key(STORE_KEY.expose()))
    assert sealed.decrypt(header[12:24], header[24:72], header[:12]) == DATA_KEY.expose()
    assert header[72:] == hashlib.sha256(header[:72]).digest()[:8]

    header = wrap(DATA_KEY, "passphrase", CHEAP)
    assert header[:24] == b"E2EE store\1\1" + b"".join(number.to_bytes(4, "big") for number in (8, 1, 1))
    sealed = AESGCM(wrapping_key(derive_key(b"passphrase", header[24:40], CHEAP)))
    assert sealed.decrypt(header[40:52], header[52:100], header[:40]) == DATA_KEY.expose()
    assert header[100:] == hashlib.sha256(header[:100]).digest()[:8]


def test_composed_and_decomposed_spellings_are_one_passphrase() -> None:
    assert unwrap(wrap(DATA_KEY, "caf\u00e9", CHEAP), "cafe\u0301") == DATA_KEY


def test_another_passphrase_key_or_kind_is_refused() -> None:
    by_passphrase, by_key = wrap(DATA_KEY, "right", CHEAP), wrap(DATA_KEY, STORE_KEY, CHEAP)
    attempts: list[tuple[bytes, Opener]] = [
        (by_passphrase, "wrong"),
        (by_passphrase, ""),
        (by_passphrase, STORE_KEY),
        (by_key, StoreKey(b"w" * 32)),
        (by_key, "right"),
        # Were passphrase and key told apart by the kind alone, these bytes would serve as both.
        (by_key, "k" * 32),
    ]
    for header, under in attempts:
        with pytest.raises(WrongPassphraseError):
            unwrap(header, under)


def test_sealing_twice_shares_neither_salt_nor_nonce_nor_ciphertext() -> None:
    first, second = wrap(DATA_KEY, "same", CHEAP), wrap(DATA_KEY, "same", CHEAP)
    assert first[24:40] != second[24:40]
    assert first[40:52] != second[40:52]
    assert first[52:] != second[52:]


def test_every_flipped_bit_and_every_cut_is_named_damage_not_a_wrong_passphrase() -> None:
    header = wrap(DATA_KEY, "right", CHEAP)
    for position in range(len(header) * 8):
        damaged = bytearray(header)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises((CorruptStateError, StoreVersionError)):
            unwrap(bytes(damaged), "right")
    for length in range(len(header)):
        with pytest.raises(CorruptStateError):
            unwrap(header[:length], "right")
    with pytest.raises(CorruptStateError):
        unwrap(with_checksum(header[:-8] + b"\0"), "right")


def test_every_byte_before_the_nonce_is_authenticated() -> None:
    header = wrap(DATA_KEY, STORE_KEY, CHEAP)
    as_passphrase = bytearray(wrap(DATA_KEY, "right", CHEAP)[:-8])
    for position in range(12, 40):
        damaged = bytearray(as_passphrase)
        damaged[position] ^= 1
        with pytest.raises(StateError):
            unwrap(with_checksum(bytes(damaged)), "right")
    with pytest.raises(StateError):
        unwrap(with_checksum(header[:11] + b"\3" + header[12:-8]), STORE_KEY)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_named_errors_only(data: bytes) -> None:
    for body in (data, b"E2EE store" + data, b"E2EE store\1" + data):
        for header in (body, with_checksum(body)):
            with pytest.raises(StateError):
                unwrap(header, "passphrase")


def test_a_newer_format_is_named() -> None:
    header = wrap(DATA_KEY, STORE_KEY, CHEAP)
    with pytest.raises(StoreVersionError) as caught:
        unwrap(header[:10] + b"\2" + header[11:], STORE_KEY)
    assert (caught.value.found, caught.value.supported) == (2, 1)


@pytest.mark.parametrize(
    "cost",
    [
        Argon2Cost(memory_kib=7, iterations=1, lanes=1),
        Argon2Cost(memory_kib=31, iterations=1, lanes=4),
        Argon2Cost(memory_kib=8, iterations=0, lanes=1),
        Argon2Cost(memory_kib=8, iterations=1, lanes=0),
        Argon2Cost(memory_kib=(1 << 20) + 1, iterations=1, lanes=1),
        Argon2Cost(memory_kib=64, iterations=17, lanes=1),
        Argon2Cost(memory_kib=1 << 20, iterations=1, lanes=17),
    ],
)
def test_costs_out_of_bounds_are_refused_by_both_sides(cost: Argon2Cost) -> None:
    with pytest.raises(ValueError):
        wrap(DATA_KEY, "right", cost)
    numbers = b"".join(number.to_bytes(4, "big") for number in cost)
    header = wrap(DATA_KEY, "right", CHEAP)
    with pytest.raises(CorruptStateError):
        unwrap(with_checksum(header[:12] + numbers + header[24:-8]), "right")


def test_exactly_one_of_passphrase_and_key_is_taken() -> None:
    assert opener("passphrase", None) == "passphrase"
    assert opener(None, b"k" * 32) == STORE_KEY
    for passphrase, key in [(None, None), ("passphrase", b"k" * 32), (None, b"k" * 31), (None, b"")]:
        with pytest.raises(ValueError):
            opener(passphrase, key)
    with pytest.raises(ValueError):
        wrap(DATA_KEY, "", CHEAP)


def test_keys_are_redacted_and_do_not_pickle() -> None:
    for secret in (DATA_KEY, STORE_KEY):
        assert "redacted" in repr(secret)
        with pytest.raises(TypeError):
            pickle.dumps(secret)
