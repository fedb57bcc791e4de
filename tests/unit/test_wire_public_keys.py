"""Public keys: the canonical rule for X25519, exact lengths, one type per purpose."""

import pytest

from e2ee.errors import InvalidPublicKeyError, MalformedMessageError
from e2ee.wire.codec import Reader
from e2ee.wire.public_keys import (
    AccountKey,
    DeviceSigningKey,
    EphemeralKey,
    IdentityKey,
    KemPreKeyPublicKey,
    PreKeyPublicKey,
    PublicKey,
    RatchetPublicKey,
    X25519PublicKey,
)

P = 2**255 - 19
X25519_KINDS = (IdentityKey, EphemeralKey, PreKeyPublicKey, RatchetPublicKey)
ALL_KINDS = (*X25519_KINDS, AccountKey, DeviceSigningKey, KemPreKeyPublicKey)

CANONICAL = [0, 1, 2, 9, 2**248 - 1, 2**254, 2**255 - 2**248 - 1, P - 2, P - 1]
NOT_CANONICAL = [P, P + 1, P + 2, 2**255 - 2, 2**255 - 1, 2**255, 2**255 + 9, 2**255 + P - 1, 2**255 + P, 2**256 - 1]


def test_2_to_the_255_minus_20_is_the_last_canonical_coordinate() -> None:
    assert P - 1 == 2**255 - 20


@pytest.mark.parametrize("kind", X25519_KINDS)
@pytest.mark.parametrize("u", CANONICAL)
def test_a_coordinate_below_p_is_accepted(kind: type[X25519PublicKey], u: int) -> None:
    raw = u.to_bytes(32, "little")

    assert kind.from_bytes(raw).raw == raw
    assert kind.from_hex(raw.hex()) == kind.from_bytes(raw)


@pytest.mark.parametrize("kind", X25519_KINDS)
@pytest.mark.parametrize("u", NOT_CANONICAL)
def test_a_coordinate_from_p_up_or_with_bit_255_set_is_refused(kind: type[X25519PublicKey], u: int) -> None:
    raw = u.to_bytes(32, "little")

    with pytest.raises(InvalidPublicKeyError):
        kind.from_bytes(raw)
    with pytest.raises(InvalidPublicKeyError):
        kind.decode(Reader(raw))
    with pytest.raises(InvalidPublicKeyError):
        kind.from_hex(raw.hex())


@pytest.mark.parametrize("bit", range(256))
def test_of_all_single_bits_only_bit_255_is_refused(bit: int) -> None:
    raw = (1 << bit).to_bytes(32, "little")

    if bit == 255:
        with pytest.raises(InvalidPublicKeyError):
            IdentityKey.from_bytes(raw)
    else:
        assert IdentityKey.from_bytes(raw).raw == raw


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_key_of_another_length_is_refused(kind: type[PublicKey]) -> None:
    for length in (0, 1, kind.LENGTH - 1, kind.LENGTH + 1):
        with pytest.raises(InvalidPublicKeyError):
            kind.from_bytes(bytes(length))
    with pytest.raises(MalformedMessageError):
        kind.decode(Reader(bytes(kind.LENGTH - 1)))


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_public_key_shows_itself_in_hex_and_names_its_purpose(kind: type[PublicKey]) -> None:
    key = kind.from_bytes(bytes(kind.LENGTH))

    assert repr(key) == f"{kind.__name__}({'00' * kind.LENGTH})"
    assert str(key) == "00" * kind.LENGTH
