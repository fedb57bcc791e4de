"""Prekey bundles: the only way to a session is a bundle that its user's signed list vouches for."""

from dataclasses import fields, replace

import pytest

from e2ee.errors import (
    E2EEError,
    InvalidSignatureError,
    MalformedMessageError,
    PreKeyExpiredError,
    UnlistedDeviceError,
)
from e2ee.limits import MAX_TIMESTAMP
from e2ee.wire.device_list import VerifiedDeviceList
from e2ee.wire.identifiers import DeviceAddress, PreKeyId, UserId
from e2ee.wire.prekey_bundle import KemPreKeyKind, PreKeyBundle, VerifiedPreKeyBundle, prekey_signed_bytes
from tests.wire_objects import EXPIRY, NOW, make_device, make_list, sign_list, verified_list

ALICE = make_device("alice", 1)
ALICE_PHONE = make_device("alice", 2, ALICE.account)
BOB = make_device("bob")
LIST = verified_list(ALICE, ALICE_PHONE)


def test_a_bundle_of_a_listed_device_verifies_and_carries_the_keys_of_the_list() -> None:
    verified = PreKeyBundle.decode(ALICE.bundle().encode()).verify(LIST, NOW)

    assert verified == VerifiedPreKeyBundle(
        address=ALICE.address,
        account_key=ALICE.account.public,
        device_signing_key=ALICE.signing.public,
        identity_key=ALICE.identity.public,
        signed_prekey=ALICE.signed_prekey(),
        one_time_prekey=ALICE.one_time_prekey(),
        kem_prekey=ALICE.kem_prekey(),
    )


def test_a_bundle_brings_no_keys_that_could_stand_in_for_those_of_the_list() -> None:
    assert {field.name for field in fields(PreKeyBundle)} == {
        "address",
        "signed_prekey",
        "one_time_prekey",
        "kem_prekey",
    }


def test_the_one_time_prekey_is_optional() -> None:
    bundle = replace(ALICE.bundle(), one_time_prekey=None)

    assert PreKeyBundle.decode(bundle.encode()) == bundle
    assert bundle.verify(LIST, NOW).one_time_prekey is None


def test_the_last_resort_kem_prekey_serves_too() -> None:
    last_resort = ALICE.kem_prekey(KemPreKeyKind.LAST_RESORT)

    assert replace(ALICE.bundle(), kem_prekey=last_resort).verify(LIST, NOW).kem_prekey == last_resort


def test_prekey_id_zero_is_valid() -> None:
    bundle = PreKeyBundle(
        ALICE.address, ALICE.signed_prekey(0), ALICE.one_time_prekey(0), ALICE.kem_prekey(prekey_id=0)
    )

    assert PreKeyBundle.decode(bundle.encode()).verify(LIST, NOW).one_time_prekey == ALICE.one_time_prekey(0)


# --- Refusals ------------------------------------------------------------------------------------------------


def assert_refused(error: type[E2EEError], bundle: PreKeyBundle, device_list: VerifiedDeviceList = LIST) -> None:
    with pytest.raises(error):
        bundle.verify(device_list, NOW)


def test_a_device_that_is_not_in_the_list_is_refused() -> None:
    assert_refused(UnlistedDeviceError, ALICE_PHONE.bundle(), verified_list(ALICE))
    assert_refused(
        UnlistedDeviceError, ALICE.bundle(), sign_list(make_list([], of=ALICE), ALICE.account).verify(UserId("alice"))
    )


def test_a_bundle_judged_by_the_list_of_another_user_is_refused() -> None:
    assert_refused(UnlistedDeviceError, ALICE.bundle(), verified_list(BOB))
    impostor = replace(BOB.bundle(), address=DeviceAddress(UserId("bob"), ALICE.address.device_id))
    assert_refused(UnlistedDeviceError, impostor)


def test_a_device_listed_with_another_signing_key_is_refused() -> None:
    other = replace(ALICE, signing=BOB.signing)

    assert_refused(InvalidSignatureError, ALICE.bundle(), verified_list(other))
    assert_refused(InvalidSignatureError, other.bundle())


@pytest.mark.parametrize("expires_at", [0, NOW - 1, NOW])
def test_an_expired_prekey_is_refused_and_named(expires_at: int) -> None:
    signed_prekey, kem_prekey = (
        ALICE.signed_prekey(71, expires_at),
        ALICE.kem_prekey(prekey_id=91, expires_at=expires_at),
    )

    for bundle, expired in (
        (replace(ALICE.bundle(), signed_prekey=signed_prekey), 71),
        (replace(ALICE.bundle(), kem_prekey=kem_prekey), 91),
    ):
        with pytest.raises(PreKeyExpiredError) as refused:
            bundle.verify(LIST, NOW)
        assert refused.value.prekey_id == expired


def test_a_prekey_is_good_until_the_last_millisecond() -> None:
    bundle = replace(ALICE.bundle(), signed_prekey=ALICE.signed_prekey(expires_at=NOW + 1))

    bundle.verify(LIST, NOW)
    with pytest.raises(PreKeyExpiredError):
        bundle.verify(LIST, NOW + 1)


def test_an_expired_prekey_with_a_prolonged_expiry_is_a_wrong_signature() -> None:
    prolonged = replace(ALICE.signed_prekey(expires_at=NOW - 1), expires_at=EXPIRY)

    assert_refused(InvalidSignatureError, replace(ALICE.bundle(), signed_prekey=prolonged))


def test_prekeys_of_two_devices_of_one_user_do_not_mix() -> None:
    assert_refused(InvalidSignatureError, replace(ALICE.bundle(), signed_prekey=ALICE_PHONE.signed_prekey()))
    assert_refused(InvalidSignatureError, replace(ALICE.bundle(), kem_prekey=ALICE_PHONE.kem_prekey()))
    assert_refused(InvalidSignatureError, replace(ALICE.bundle(), address=ALICE_PHONE.address))


def test_prekeys_of_another_user_are_refused() -> None:
    assert_refused(InvalidSignatureError, replace(BOB.bundle(), address=ALICE.address))


@pytest.mark.parametrize(
    "change", [{"prekey_id": PreKeyId(70)}, {"expires_at": EXPIRY - 1}, {"public_key": BOB.prekey.public}]
)
def test_the_signature_covers_every_field_of_a_signed_prekey(change: dict[str, object]) -> None:
    changed = replace(ALICE.signed_prekey(), **change)  # type: ignore[arg-type]  # one field at a time

    with pytest.raises(InvalidSignatureError, match="on signed prekey"):
        replace(ALICE.bundle(), signed_prekey=changed).verify(LIST, NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"prekey_id": PreKeyId(90)},
        {"expires_at": MAX_TIMESTAMP},
        {"public_key": BOB.kem.public},
        {"kind": KemPreKeyKind.LAST_RESORT},
    ],
)
def test_the_signature_covers_every_field_of_a_kem_prekey(change: dict[str, object]) -> None:
    changed = replace(ALICE.kem_prekey(), **change)  # type: ignore[arg-type]  # one field at a time

    with pytest.raises(InvalidSignatureError, match="on KEM prekey"):
        replace(ALICE.bundle(), kem_prekey=changed).verify(LIST, NOW)


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_no_or_another_signature_is_refused(signature: bytes) -> None:
    assert_refused(
        InvalidSignatureError,
        replace(ALICE.bundle(), signed_prekey=replace(ALICE.signed_prekey(), signature=signature)),
    )


# --- Bytes ---------------------------------------------------------------------------------------------------


def test_a_bundle_without_a_kem_prekey_does_not_parse() -> None:
    bundle = ALICE.bundle()

    with pytest.raises(MalformedMessageError):
        PreKeyBundle.decode(bundle.encode()[: -len(bundle.kem_prekey.encode())])


@pytest.mark.parametrize("kind", [0, 3, 255])
def test_an_unknown_kind_of_kem_prekey_is_refused(kind: int) -> None:
    bundle = ALICE.bundle()
    at = len(bundle.encode()) - len(bundle.kem_prekey.encode())
    encoded = bundle.encode()

    with pytest.raises(MalformedMessageError):
        PreKeyBundle.decode(encoded[:at] + bytes([kind]) + encoded[at + 1 :])


def test_the_signed_bytes_start_with_their_label() -> None:
    address = ALICE.address
    expected = b"\x05label" + address.encode() + (7).to_bytes(4, "big") + (9).to_bytes(8, "big") + b"key"

    assert prekey_signed_bytes(b"label", address, 7, 9, b"key") == expected
    assert ALICE.signed_prekey().signed_bytes(address).startswith(b"\x14E2EE/1 signed prekey")
    assert ALICE.kem_prekey().signed_bytes(address).startswith(b"\x1aE2EE/1 one-time KEM prekey")
    last_resort = ALICE.kem_prekey(KemPreKeyKind.LAST_RESORT)
    assert last_resort.signed_bytes(address).startswith(b"\x1dE2EE/1 last-resort KEM prekey")
