"""ML-KEM-1024: lengths, implicit rejection, typed refusals. Known answers are in tests/oracle."""

import pytest

from e2ee.errors import InvalidPublicKeyError, MalformedMessageError
from e2ee.primitives import kem
from tests.wire_objects import seeded_rng

SEED = seeded_rng("kem")(64)
PUBLIC_KEY = kem.public_key_1024(SEED)


def test_lengths_are_those_of_fips_203() -> None:
    shared_secret, ciphertext = kem.encapsulate_1024(PUBLIC_KEY)

    assert (len(PUBLIC_KEY), len(ciphertext), len(shared_secret)) == (1568, 1568, 32)


def test_both_ends_agree() -> None:
    shared_secret, ciphertext = kem.encapsulate_1024(PUBLIC_KEY)

    assert kem.decapsulate_1024(SEED, ciphertext) == shared_secret


@pytest.mark.parametrize("at", [0, 1, 700, 1566, 1567])
def test_a_changed_ciphertext_gives_another_secret_and_no_error(at: int) -> None:
    # Implicit rejection: a KEM alone confirms nothing, so the handshake must.
    shared_secret, ciphertext = kem.encapsulate_1024(PUBLIC_KEY)
    changed = bytearray(ciphertext)
    changed[at] ^= 1

    rejected = kem.decapsulate_1024(SEED, bytes(changed))
    assert rejected != shared_secret
    assert rejected == kem.decapsulate_1024(SEED, bytes(changed))


@pytest.mark.parametrize("length", [0, 1, 1088, 1567, 1569])
def test_a_key_or_ciphertext_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidPublicKeyError):
        kem.encapsulate_1024(bytes(length))
    with pytest.raises(MalformedMessageError):
        kem.decapsulate_1024(SEED, bytes(length))


@pytest.mark.parametrize("coefficient", [3329, 3330, 4095])
@pytest.mark.parametrize("at", [0, 3 * 511])
def test_a_coefficient_from_q_up_is_refused(coefficient: int, at: int) -> None:
    # FIPS 203 section 7.2, modulus check: 12 bits hold up to 4,095, and q is 3,329.
    changed = bytearray(PUBLIC_KEY)
    changed[at : at + 2] = (coefficient | (changed[at + 1] & 0xF0) << 8).to_bytes(2, "little")

    with pytest.raises(InvalidPublicKeyError):
        kem.encapsulate_1024(bytes(changed))


def test_the_largest_coefficient_below_q_is_accepted() -> None:
    changed = bytearray(PUBLIC_KEY)
    changed[0:2] = (3328 | (changed[1] & 0xF0) << 8).to_bytes(2, "little")

    assert len(kem.encapsulate_1024(bytes(changed))[1]) == 1568
