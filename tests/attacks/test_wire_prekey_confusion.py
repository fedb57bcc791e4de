"""Attack: a signature or key of one kind taken for another kind (docs/attacks.md row 22, the part of the signatures).

In the first version of PQXDH an encapsulation key could stand in for a curve key, because both were signed alike. Here
each kind of signed object has its own label, and a signature covers label, address, id, expiry and key.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import pytest

from e2ee.errors import E2EEError, InvalidSignatureError, MalformedMessageError
from e2ee.wire import device_list, login_assertion, prekey_bundle
from e2ee.wire.codec import Reader
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.login_assertion import LoginAssertion, LoginId
from e2ee.wire.prekey_bundle import KemPreKey, KemPreKeyKind, SignedPreKey, prekey_signed_bytes
from e2ee.wire.public_keys import AccountKey, KemPreKeyPublicKey, PreKeyPublicKey
from tests.wire_objects import EXPIRY, NOW, make_device, make_list, verified_list

ALICE = make_device("alice")
LIST = verified_list(ALICE)

LABELS = (
    prekey_bundle.SIGNED_PREKEY_LABEL,
    prekey_bundle.ONE_TIME_KEM_PREKEY_LABEL,
    prekey_bundle.LAST_RESORT_KEM_PREKEY_LABEL,
    device_list.DEVICE_LIST_LABEL,
    login_assertion.LOGIN_ASSERTION_LABEL,
)

# Every kind of object with one key to sign them all: only the label can tell their signatures apart.
KEY = ALICE.signing
_content = replace(make_list([ALICE]), account_key=AccountKey(KEY.public.raw))
_login = LoginAssertion("https://chat.example", ALICE.address, LoginId(bytes(16)), 1)
_one_time, _last_resort = (ALICE.kem_prekey(kind) for kind in KemPreKeyKind)

SIGNED_BYTES = {
    "signed prekey": ALICE.signed_prekey().signed_bytes(ALICE.address),
    "one-time KEM prekey": _one_time.signed_bytes(ALICE.address),
    "last-resort KEM prekey": _last_resort.signed_bytes(ALICE.address),
    "device list": _content.signed_bytes(),
    "login assertion": _login.signed_bytes(),
}
VERIFY: dict[str, Callable[[bytes], object]] = {
    "signed prekey": lambda s: replace(ALICE.signed_prekey(), signature=s).verify(ALICE.address, KEY.public),
    "one-time KEM prekey": lambda s: replace(_one_time, signature=s).verify(ALICE.address, KEY.public),
    "last-resort KEM prekey": lambda s: replace(_last_resort, signature=s).verify(ALICE.address, KEY.public),
    "device list": lambda s: SignedDeviceList(_content, s).verify(_content.user_id),
    "login assertion": lambda s: _login.verify(KEY.public, s),
}


@pytest.mark.parametrize("kind", SIGNED_BYTES)
def test_a_signature_verifies_as_its_own_kind(kind: str) -> None:
    VERIFY[kind](KEY.sign(SIGNED_BYTES[kind]))


@pytest.mark.parametrize(("signed_as", "shown_as"), [*permutations(SIGNED_BYTES, 2)])
def test_a_signature_for_one_label_never_verifies_as_another_kind(signed_as: str, shown_as: str) -> None:
    with pytest.raises(InvalidSignatureError):
        VERIFY[shown_as](KEY.sign(SIGNED_BYTES[signed_as]))


@pytest.mark.parametrize(("one", "other"), [*permutations(LABELS, 2)])
def test_equal_fields_under_two_labels_are_signed_apart(one: bytes, other: bytes) -> None:
    fields = ALICE.address, 7, EXPIRY, b"k" * 32

    assert not prekey_signed_bytes(one, *fields).startswith(prekey_signed_bytes(other, *fields)[: 1 + len(other)])


def test_a_one_time_kem_prekey_does_not_pass_for_the_last_resort_one() -> None:
    # A server would do it to make a claimed key serve again and again.
    promoted = replace(_one_time, kind=KemPreKeyKind.LAST_RESORT)
    with pytest.raises(InvalidSignatureError):
        replace(ALICE.bundle(), kem_prekey=promoted).verify(LIST, NOW)
    demoted = replace(_last_resort, kind=KemPreKeyKind.ONE_TIME)
    with pytest.raises(InvalidSignatureError):
        replace(ALICE.bundle(), kem_prekey=demoted).verify(LIST, NOW)


def test_an_encapsulation_key_does_not_parse_where_a_curve_key_belongs_and_the_other_way_round() -> None:
    as_curve_key = _one_time.encode()[1:]
    with pytest.raises(E2EEError):
        decode_whole(SignedPreKey.decode, as_curve_key)
    with pytest.raises(MalformedMessageError):
        decode_whole(KemPreKey.decode, b"\x01" + ALICE.signed_prekey().encode())
    with pytest.raises(E2EEError):
        PreKeyPublicKey.from_bytes(_one_time.public_key.raw)
    with pytest.raises(E2EEError):
        KemPreKeyPublicKey.from_bytes(ALICE.prekey.public.raw)


def test_a_curve_key_stretched_to_the_length_of_an_encapsulation_key_keeps_its_own_signature_only() -> None:
    signed = ALICE.signed_prekey()
    stretched = KemPreKeyPublicKey.from_bytes(signed.public_key.raw + signed.signature.ljust(1536, b"\0"))
    for kind in KemPreKeyKind:
        posing = KemPreKey(kind, signed.prekey_id, signed.expires_at, stretched, signed.signature)
        with pytest.raises(InvalidSignatureError):
            posing.verify(ALICE.address, ALICE.signing.public)


def test_no_label_is_the_beginning_of_another_once_framed() -> None:
    framed = [bytes([len(label)]) + label for label in LABELS]

    assert len(set(framed)) == len(LABELS)
    assert not any(one.startswith(other) for one, other in permutations(framed, 2))


def decode_whole(decode: Callable[[Reader], object], data: bytes) -> object:
    reader = Reader(data)
    value = decode(reader)
    reader.finish()
    return value
