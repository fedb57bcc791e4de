"""Every Ed25519Verify case once more, in plain integers: the five rules of protocol.md section 3.1, word for word.

And the crafted ones are worth having: each deceives a verifier that lacks a rule.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests import ed25519_arithmetic as curve
from tests.vectors import crafted_signatures, second_backend as second

PRIMITIVES: Final = Path(__file__).parents[2] / "vectors" / "primitives.json"
CRAFTED: Final = json.loads(crafted_signatures.RECORD.read_text())


def verify_cases() -> Iterator[dict[str, Any]]:
    groups = json.loads(PRIMITIVES.read_text())["testGroups"]
    yield from (test for group in groups if group["type"] == "Ed25519Verify" for test in group["tests"])


def fields(given: dict[str, str]) -> tuple[bytes, bytes, bytes]:
    return bytes.fromhex(given["public_key"]), bytes.fromhex(given["message"]), bytes.fromhex(given["signature"])


def y_of(raw: bytes) -> int:
    return int.from_bytes(raw, "little") & (1 << 255) - 1


SMALL: Final = {y_of(raw) for raw in curve.small_order_encodings()}
"""y of the points of small order, p and p + 1 included."""


def verifies_strictly(key: bytes, message: bytes, signature: bytes) -> bool:
    if len(key) != 32 or len(signature) != 64:  # rule 1
        return False
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    if s >= curve.L or y_of(key) >= curve.P or y_of(key) in SMALL or y_of(r) in SMALL:  # rules 2 to 4
        return False
    x, y = curve.decode(key)
    k = curve.challenge(r, key, message)
    return curve.encode(curve.add(curve.multiply(s, curve.BASE), curve.multiply(k, (-x % curve.P, y)))) == r  # rule 5


def test_the_five_rules_in_plain_integers_agree_with_every_case() -> None:
    cases = list(verify_cases())
    assert len(cases) > 60
    for test in cases:
        assert verifies_strictly(*fields(test["input"])) is (test["result"] == "valid"), test["comment"]


def test_the_record_of_crafted_signatures_is_made_again_byte_for_byte() -> None:
    assert crafted_signatures.record() == crafted_signatures.RECORD.read_bytes()


@pytest.mark.parametrize("group", ["cofactored", "weak"])
def test_each_crafted_refusal_deceives_a_lenient_verifier(group: str) -> None:
    for comment, given in CRAFTED[group].items():
        assert verifies_leniently(*fields(given)), comment


def verifies_leniently(key: bytes, message: bytes, signature: bytes) -> bool:
    """RFC 8032's equation with cofactor, S of any size; encodings are hashed as they stand or in canonical form."""
    spellings = [(signature[:32], key), (canonical(signature[:32]), key), (signature[:32], canonical(key))]
    return any(
        curve.multiply(8 * int.from_bytes(signature[32:], "little"), curve.BASE)
        == curve.multiply(8, curve.add(point(r), curve.multiply(curve.challenge(r, a, message), point(a))))
        for r, a in spellings
    )


def point(raw: bytes) -> curve.Point:
    x, y = curve.decode(raw)
    return x, y % curve.P


def canonical(raw: bytes) -> bytes:
    return curve.encode(point(raw))


def test_those_that_hold_with_cofactor_only_are_refused_by_openssl_and_the_accepted_ones_are_not() -> None:
    assert len(CRAFTED["accepted"]) == 2
    assert all(second.verifies(*fields(given)) for given in CRAFTED["accepted"].values())
    assert not any(second.verifies(*fields(given)) for given in CRAFTED["cofactored"].values())


def test_openssl_alone_would_accept_keys_and_r_of_small_order() -> None:
    deceived = [comment for comment, given in CRAFTED["weak"].items() if second.verifies(*fields(given))]
    assert len(deceived) > 10
