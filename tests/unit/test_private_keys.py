"""Secrets stay in their wrapper; key pairs give the operations of their purpose."""

import copy
import dataclasses
import json
import pickle
from itertools import permutations
from types import ModuleType
from typing import Any

import pytest

from e2ee import private_keys
from e2ee.errors import InvalidPublicKeyError, MalformedMessageError
from e2ee.primitives.rng import system_rng
from e2ee.private_keys import (
    AccountKeyPair,
    DeviceSigningKeyPair,
    EphemeralKeyPair,
    IdentityKeyPair,
    KemPreKeyPair,
    PreKeyPair,
    RatchetKemSeed,
    RatchetKeyPair,
    RootKey,
    SecretBytes,
    SeedBytes32,
    SeedBytes64,
    SharedSecret,
    diffie_hellman,
    encapsulate,
    handshake_diffie_hellman,
)
from e2ee.wire.public_keys import (
    AccountKey,
    DeviceSigningKey,
    EphemeralKey,
    IdentityKey,
    KemPreKeyPublicKey,
    PreKeyPublicKey,
    RatchetPublicKey,
)
from tests.wire_objects import seeded_rng


def subclasses(kind: type, module: ModuleType) -> list[Any]:
    return [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, kind)]


CANARY = b"correct horse battery staple canary canary correct horse battery"
SECRET_KINDS: list[type[SecretBytes]] = subclasses(SecretBytes, private_keys)
X25519_PAIRS = (IdentityKeyPair, EphemeralKeyPair, PreKeyPair, RatchetKeyPair)
SIGNING_PAIRS = (AccountKeyPair, DeviceSigningKeyPair)
PAIRS = (*X25519_PAIRS, *SIGNING_PAIRS, KemPreKeyPair)

Secret = Any
"""A SecretBytes or a key pair."""


def canary(kind: type[SecretBytes]) -> SecretBytes:
    return kind(CANARY[: kind.LENGTH])


def holders() -> list[Secret]:
    """One of every kind that holds a secret, each holding the canary."""
    pairs = [kind(SeedBytes32(CANARY[:32])) for kind in (*X25519_PAIRS, *SIGNING_PAIRS)]
    return [*map(canary, SECRET_KINDS), *pairs, KemPreKeyPair(SeedBytes64(CANARY))]


every_holder = pytest.mark.parametrize("secret", holders(), ids=lambda secret: type(secret).__name__)
every_secret_kind = pytest.mark.parametrize("kind", SECRET_KINDS)


@dataclasses.dataclass(frozen=True)
class Holder:
    """State as an application might write it around a secret."""

    name: str
    secret: Secret


def assert_shows_nothing(text: str) -> None:
    for form in (CANARY[:32].decode(), CANARY[:8].decode(), CANARY[:8].hex(), "Y29ycmVjd", "99, 111, 114"):
        assert form not in text


# --- Text ----------------------------------------------------------------------------------------------------


@every_holder
def test_no_text_form_shows_a_secret(secret: Secret) -> None:
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r:>80}", "%s %r" % (secret, secret), ascii(secret)):  # noqa: UP031 - one of the ways
        assert "redacted" in text
        assert_shows_nothing(text)
    assert_shows_nothing(repr([Holder("x", secret), {"key": secret}]))


@every_holder
def test_the_error_of_a_refused_operation_shows_no_secret(secret: Secret) -> None:
    for attempt in (
        pickle.dumps,
        copy.copy,
        hash,
        json.dumps,
        lambda held: held.LENGTH.missing,
        lambda held: held + b"x",
    ):
        with pytest.raises((TypeError, AttributeError)) as refused:
            attempt(secret)
        assert_shows_nothing(str(refused.value))


@every_secret_kind
@pytest.mark.parametrize(
    "wrong", [b"", CANARY[:31], CANARY[:33], CANARY + b"x", CANARY.decode(), bytearray(CANARY[:32]), None]
)
def test_a_secret_of_another_length_or_type_is_refused_without_being_shown(kind: type[SecretBytes], wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"{kind.__name__} is {kind.LENGTH} bytes") as refused:
        kind(wrong)
    assert_shows_nothing(str(refused.value))


# --- Ways out ------------------------------------------------------------------------------------------------


@every_holder
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_is_not_pickled(secret: Secret, protocol: int) -> None:
    for value in (secret, Holder("x", secret), [secret]):
        with pytest.raises(TypeError, match=r"serialised by e2ee\.persist only"):
            pickle.dumps(value, protocol)


@every_holder
def test_a_secret_is_not_copied(secret: Secret) -> None:
    for duplicate in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            duplicate(secret)
    with pytest.raises(TypeError):
        copy.deepcopy({"state": [secret]})


@every_holder
def test_a_secret_does_not_leave_through_asdict_json_or_bytes(secret: Secret) -> None:
    with pytest.raises(TypeError):
        dataclasses.asdict(Holder("x", secret))
    with pytest.raises(TypeError):
        json.dumps({"secret": secret})
    for conversion in (bytes, list, len, memoryview, vars):
        with pytest.raises(TypeError):
            conversion(secret)


@every_holder
def test_a_secret_is_no_dictionary_key(secret: Secret) -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(secret)
    with pytest.raises(TypeError, match="unhashable"):
        _ = {secret: 1}


@every_secret_kind
def test_replace_and_equality_work_so_state_can_be_a_value(kind: type[SecretBytes]) -> None:
    before = Holder("before", canary(kind))

    assert dataclasses.replace(before, name="after") == Holder("after", canary(kind))


@every_secret_kind
def test_expose_is_the_way_out(kind: type[SecretBytes]) -> None:
    assert canary(kind).expose() == CANARY[: kind.LENGTH]


# --- Equality and immutability ------------------------------------------------------------------------------


def test_secrets_of_two_kinds_are_unequal_even_with_equal_bytes() -> None:
    for one, other in permutations((kind for kind in SECRET_KINDS if kind.LENGTH == 32), 2):
        assert canary(one) != canary(other)


@every_secret_kind
def test_secrets_compare_by_content_within_a_kind(kind: type[SecretBytes]) -> None:
    different = bytes([CANARY[0] ^ 1]) + CANARY[1 : kind.LENGTH]

    assert canary(kind) == canary(kind)
    assert canary(kind) != kind(different)


@every_secret_kind
def test_a_secret_never_equals_plain_bytes(kind: type[SecretBytes]) -> None:
    assert canary(kind) != CANARY[: kind.LENGTH]
    assert CANARY[: kind.LENGTH] != canary(kind)


@every_secret_kind
def test_a_secret_cannot_be_changed_or_extended(kind: type[SecretBytes]) -> None:
    secret = canary(kind)
    for name in ("_raw", "LENGTH", "other"):
        with pytest.raises(AttributeError):
            setattr(secret, name, bytes(kind.LENGTH))
    assert secret == canary(kind)


@pytest.mark.parametrize("kind", PAIRS)
def test_key_pairs_compare_by_their_private_half_within_a_kind(kind: Any) -> None:
    one, same, other = (kind.generate(seeded_rng(seed)) for seed in (1, 1, 2))

    assert one == same
    assert one != other
    assert all(one != another.generate(seeded_rng(1)) for another in PAIRS if another is not kind)


@pytest.mark.parametrize("kind", X25519_PAIRS)
def test_an_x25519_pair_cannot_be_changed(kind: Any) -> None:
    pair = kind.generate(seeded_rng(1))
    for name in ("private", "public", "other"):
        with pytest.raises(AttributeError):
            setattr(pair, name, None)


# --- Operations ----------------------------------------------------------------------------------------------


def test_each_pair_has_the_public_key_type_of_its_purpose() -> None:
    rng = seeded_rng(1)
    expected = {
        IdentityKeyPair: IdentityKey,
        EphemeralKeyPair: EphemeralKey,
        PreKeyPair: PreKeyPublicKey,
        RatchetKeyPair: RatchetPublicKey,
        AccountKeyPair: AccountKey,
        DeviceSigningKeyPair: DeviceSigningKey,
        KemPreKeyPair: KemPreKeyPublicKey,
    }
    made: dict[Any, type] = {kind: type(kind.generate(rng).public) for kind in PAIRS}

    assert made == expected


def test_generated_x25519_public_keys_are_canonical() -> None:
    rng = seeded_rng(1)
    for _ in range(50):
        raw = IdentityKeyPair.generate(rng).public.raw
        assert IdentityKey.from_bytes(raw).raw == raw


def test_both_ends_of_a_diffie_hellman_agree() -> None:
    rng = seeded_rng(1)
    ours, theirs = RatchetKeyPair.generate(rng), RatchetKeyPair.generate(rng)
    identity, prekey = IdentityKeyPair.generate(rng), PreKeyPair.generate(rng)

    assert diffie_hellman(ours, theirs.public) == diffie_hellman(theirs, ours.public)
    assert handshake_diffie_hellman(identity, prekey.public) == handshake_diffie_hellman(prekey, identity.public)


@pytest.mark.parametrize("kind", SIGNING_PAIRS)
def test_signatures_are_deterministic_and_64_bytes(kind: Any) -> None:
    pair = kind.generate(seeded_rng(1))

    assert pair.sign(b"message") == pair.sign(b"message")
    assert len(pair.sign(b"message")) == 64
    assert kind(pair.seed) == pair


def test_decapsulation_gives_what_was_encapsulated() -> None:
    pair = KemPreKeyPair.generate(seeded_rng(1))
    shared_secret, ciphertext = encapsulate(pair.public)

    assert pair.decapsulate(ciphertext) == shared_secret
    assert KemPreKeyPair(pair.seed, pair.public).decapsulate(ciphertext) == shared_secret


def test_every_encapsulation_is_fresh() -> None:
    public = KemPreKeyPair.generate(seeded_rng(1)).public

    assert encapsulate(public) != encapsulate(public)


def test_hostile_kem_bytes_raise_typed_errors() -> None:
    with pytest.raises(InvalidPublicKeyError):
        encapsulate(KemPreKeyPublicKey.from_bytes(b"\xff" * 1568))
    for length in (0, 1567, 1569):
        with pytest.raises(MalformedMessageError):
            KemPreKeyPair.generate(seeded_rng(1)).decapsulate(bytes(length))


def test_the_system_generator_gives_fresh_bytes_of_the_length_asked_for() -> None:
    assert [len(system_rng(length)) for length in (0, 1, 32, 64)] == [0, 1, 32, 64]
    assert system_rng(32) != system_rng(32)


def test_the_tests_above_see_every_kind_of_secret() -> None:
    # They go over the module, so a new kind is tested without being named here.
    assert {RootKey, RatchetKemSeed, SharedSecret} < set(SECRET_KINDS)
    assert len(SECRET_KINDS) == len({kind.__name__ for kind in SECRET_KINDS})
