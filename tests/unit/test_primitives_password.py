"""Argon2id: agreement with libsodium, every parameter counts, and costs from a hostile file are bounded."""

import pytest
from nacl.bindings import crypto_pwhash_alg
from nacl.pwhash import argon2id

from e2ee.primitives.password import DEFAULT_COST, SALT_LENGTH, Argon2Cost, derive_key

SALT = bytes(range(SALT_LENGTH))
CHEAP = Argon2Cost(memory_kib=64, iterations=2, lanes=1)


def test_libsodium_derives_the_same_key() -> None:
    # libsodium fixes one lane and takes bytes where we take KiB.
    theirs = crypto_pwhash_alg(32, b"passphrase", SALT, CHEAP.iterations, CHEAP.memory_kib * 1024, argon2id.ALG)

    assert derive_key(b"passphrase", SALT, CHEAP) == theirs


def test_every_parameter_changes_the_key() -> None:
    keys = {
        derive_key(b"passphrase", SALT, CHEAP),
        derive_key(b"Passphrase", SALT, CHEAP),
        derive_key(b"passphrase", SALT[::-1], CHEAP),
        derive_key(b"passphrase", SALT, CHEAP._replace(iterations=3)),
        derive_key(b"passphrase", SALT, CHEAP._replace(lanes=2)),
        derive_key(b"passphrase", SALT, CHEAP._replace(memory_kib=72)),
    }

    assert len(keys) == 6
    assert {len(key) for key in keys} == {32}


@pytest.mark.parametrize(
    "cost", [DEFAULT_COST, CHEAP, Argon2Cost(8, 1, 1), Argon2Cost(128, 16, 16), Argon2Cost(1 << 20, 1, 1)]
)
def test_costs_within_bounds_are_allowed(cost: Argon2Cost) -> None:
    assert cost.is_allowed()


@pytest.mark.parametrize(
    "cost",
    [
        Argon2Cost(7, 1, 1),  # less than 8 KiB a lane is undefined
        Argon2Cost(127, 1, 16),
        Argon2Cost((1 << 20) + 1, 1, 1),
        Argon2Cost(1 << 32, 1, 1),
        Argon2Cost(64, 0, 1),
        Argon2Cost(64, 17, 1),
        Argon2Cost(64, 1, 0),
        Argon2Cost(1 << 20, 1, 17),
        Argon2Cost(-1, 1, 1),
    ],
)
def test_costs_that_a_hostile_file_could_name_are_not(cost: Argon2Cost) -> None:
    assert not cost.is_allowed()
