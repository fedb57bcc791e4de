"""The primitives against Wycheproof (C2SP), which collects the edge cases that broke others.

The vectors are third-party data and no part of the project: they are read from `$E2EE_WYCHEPROOF_DIR` or from
`../shared/vectors/wycheproof` beside the project, and the tests are skipped where neither is there.

Differences between a vector's verdict and ours, all of them stricter:

| file | flag | vector says | we |
|---|---|---|---|
| x25519 | ZeroSharedSecret, LowOrderPublic | acceptable | refuse: an all-zero secret contributes nothing |
| x25519 | NonCanonicalPublic | acceptable | refuse on the wire: one key has one encoding |
| aes_gcm | SmallIv, LongIv | valid | never seen: a nonce is 12 bytes by format |
| ed25519 | none | | libsodium's strict verification gives every verdict of the file |
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from e2ee.errors import AuthenticationError, InvalidPublicKeyError, InvalidSignatureError, MalformedMessageError
from e2ee.primitives import aead, dh, kdf, kem
from e2ee.primitives.verify import verify
from e2ee.wire.public_keys import IdentityKey

BESIDE_THE_PROJECT: Final = Path(__file__).parents[2].parent / "shared" / "vectors" / "wycheproof"
DIRECTORY: Final = Path(os.environ.get("E2EE_WYCHEPROOF_DIR") or BESIDE_THE_PROJECT)

pytestmark = pytest.mark.skipif(
    not DIRECTORY.is_dir(), reason="Wycheproof vectors are absent: set E2EE_WYCHEPROOF_DIR to their folder"
)

Case = dict[str, Any]
"""A test of a file, with the fields of its group under `group`."""


def cases(name: str) -> Iterator[Case]:
    content = json.loads((DIRECTORY / f"{name}_test.json").read_text())
    for group in content["testGroups"]:
        shared = {key: value for key, value in group.items() if key != "tests"}
        for case in group["tests"]:
            yield case | {"group": shared}


def raw(case: Case, field: str) -> bytes:
    return bytes.fromhex(case[field])


# --- X25519 --------------------------------------------------------------------------------------------------


def test_x25519_gives_the_shared_secret_or_refuses_an_all_zero_one() -> None:
    refused = computed = 0
    for case in cases("x25519"):
        if "ZeroSharedSecret" in case["flags"]:
            with pytest.raises(InvalidPublicKeyError):
                dh.exchange(raw(case, "private"), raw(case, "public"))
            assert not any(raw(case, "shared"))
            refused += 1
        else:
            assert dh.exchange(raw(case, "private"), raw(case, "public")) == raw(case, "shared"), case["tcId"]
            computed += 1

    assert (refused, computed) == (31, 487)


def test_x25519_refuses_the_low_order_points_it_marks_and_no_other_public_key_fails() -> None:
    marked = {case["tcId"] for case in cases("x25519") if "LowOrderPublic" in case["flags"]}

    assert marked == {case["tcId"] for case in cases("x25519") if "ZeroSharedSecret" in case["flags"]}


def test_x25519_keys_that_it_marks_as_non_canonical_never_enter_from_the_wire() -> None:
    entered = set()
    for case in cases("x25519"):
        u = int.from_bytes(raw(case, "public"), "little")
        if u < 2**255 - 19:
            assert IdentityKey.from_bytes(raw(case, "public")).raw == raw(case, "public")
            entered.add("NonCanonicalPublic" in case["flags"])
        else:
            with pytest.raises(InvalidPublicKeyError):
                IdentityKey.from_bytes(raw(case, "public"))

    assert entered == {False}


# --- Ed25519 -------------------------------------------------------------------------------------------------


def test_ed25519_strict_verification_gives_every_verdict() -> None:
    differing: dict[int, list[str]] = {}
    valid = invalid = 0
    for case in cases("ed25519"):
        public_key = bytes.fromhex(case["group"]["publicKey"]["pk"])
        try:
            verify(public_key, raw(case, "msg"), raw(case, "sig"), "test vector")
            verdict = "valid"
            valid += 1
        except InvalidSignatureError:
            verdict = "invalid"
            invalid += 1
        if verdict != case["result"]:
            differing[case["tcId"]] = case["flags"]

    assert differing == {}
    assert (valid, invalid) == (88, 63)


# --- AES-256-GCM ---------------------------------------------------------------------------------------------


def test_aes_256_gcm_with_our_nonce_and_tag_length() -> None:
    valid = invalid = 0
    for case in cases("aes_gcm"):
        group = case["group"]
        if (group["keySize"], group["ivSize"], group["tagSize"]) != (256, 96, 128):
            continue
        inputs = raw(case, "key"), raw(case, "iv")
        plaintext, aad, sealed = raw(case, "msg"), raw(case, "aad"), raw(case, "ct") + raw(case, "tag")
        if case["result"] == "valid":
            assert aead.seal(*inputs, plaintext, aad) == sealed, case["tcId"]
            assert aead.unseal(*inputs, sealed, aad) == plaintext, case["tcId"]
            valid += 1
        else:
            with pytest.raises(AuthenticationError):
                aead.unseal(*inputs, sealed, aad)
            invalid += 1

    assert (valid, invalid) == (39, 27)


# --- ML-KEM-1024 ---------------------------------------------------------------------------------------------


def test_ml_kem_1024_seeds_expand_and_ciphertexts_decapsulate() -> None:
    valid = 0
    for case in cases("mlkem_1024"):
        if case["result"] != "valid":
            continue
        assert kem.public_key_1024(raw(case, "seed")) == raw(case, "ek"), case["tcId"]
        assert kem.decapsulate_1024(raw(case, "seed"), raw(case, "c")) == raw(case, "K"), case["tcId"]
        valid += 1

    assert valid == 153


def test_ml_kem_1024_refuses_seeds_and_ciphertexts_of_another_length() -> None:
    refused = 0
    for case in cases("mlkem_1024"):
        if case["result"] != "invalid":
            continue
        with pytest.raises(MalformedMessageError):
            kem.decapsulate_1024(raw(case, "seed"), raw(case, "c"))
        refused += 1

    assert refused == 40


# --- HKDF ----------------------------------------------------------------------------------------------------


def test_hkdf_over_the_inputs_that_it_thought_of() -> None:
    # The file holds answers for SHA-256; ours is SHA-512. Its inputs (empty salts, no info, maximal sizes) still are
    # the interesting ones, and OpenSSL, which gives the file's answers for SHA-256, gives ours for SHA-512.
    compared = 0
    for case in cases("hkdf_sha256"):
        salt, info, size = raw(case, "salt"), raw(case, "info"), case["size"]
        theirs = HKDF(algorithm=SHA512(), length=size, salt=salt or None, info=info).derive(raw(case, "ikm"))
        assert kdf.hkdf_sha512(salt, raw(case, "ikm"), info, size) == theirs, case["tcId"]
        compared += 1

    assert compared == 86
