"""Attack: passing one kind of identifier off as another (docs/attacks.md row 9).

In Matrix a device id that looked like a key id led short authentication strings to verify the wrong thing
(CVE-2022-39250). Here each kind is its own type, lengths are framed, and signatures cover id and key together.
"""

from dataclasses import replace

import pytest

from e2ee.errors import InvalidSignatureError, MalformedMessageError, UnlistedDeviceError
from e2ee.wire.codec import Reader
from e2ee.wire.device_list import DeviceListHash
from e2ee.wire.identifiers import DeviceAddress, DeviceId, EnvelopeId, MessageId, UserId
from e2ee.wire.prekey_bundle import SIGNED_PREKEY_LABEL, prekey_signed_bytes
from e2ee.wire.public_keys import AccountKey, DeviceSigningKey, IdentityKey, RatchetPublicKey
from tests.wire_objects import NOW, make_device, make_list, sign_list, verified_list

ALICE = make_device("alice", 1)
ALICE_PHONE = make_device("alice", 2, ALICE.account)


def test_a_device_id_made_of_key_bytes_is_still_no_key() -> None:
    raw = ALICE.account.public.raw
    posing: object = DeviceId(raw[:16])  # as `object`, because mypy already refuses to compare it with a key

    assert posing != ALICE.account.public
    with pytest.raises(ValueError):
        DeviceId(raw)


def test_equal_bytes_under_two_types_never_meet_in_a_lookup() -> None:
    sixteen = {kind(b"x" * 16): kind for kind in (DeviceId, EnvelopeId, MessageId)}
    thirty_two = {
        kind(bytes(32)): kind for kind in (AccountKey, DeviceSigningKey, IdentityKey, RatchetPublicKey, DeviceListHash)
    }

    assert len(sixteen) == 3
    assert len(thirty_two) == 5


def test_a_user_id_that_ends_like_a_device_id_does_not_move_the_border_between_them() -> None:
    plain = DeviceAddress(UserId("alice"), DeviceId(b"0" * 16))
    crafted = DeviceAddress(UserId(str(plain)), DeviceId(b"0" * 16))

    assert plain.encode() != crafted.encode()
    assert DeviceAddress.parse(str(crafted)) == crafted
    assert DeviceAddress.decode(Reader(crafted.encode())) == crafted


def test_moving_bytes_between_user_id_and_device_id_changes_what_is_signed() -> None:
    one = DeviceAddress(UserId("alice"), DeviceId(b"0" * 16))
    other = DeviceAddress(UserId("alice0"), DeviceId(b"0" * 15 + b"1"))
    signed = {prekey_signed_bytes(SIGNED_PREKEY_LABEL, each, 1, NOW, bytes(32)) for each in (one, other)}

    assert len(signed) == 2


def test_a_device_address_that_holds_only_a_user_or_only_a_device_is_refused() -> None:
    for text in ("alice", str(ALICE.address.device_id), f"/{ALICE.address.device_id}"):
        with pytest.raises(MalformedMessageError):
            DeviceAddress.parse(text)


def test_a_listed_device_with_its_two_keys_exchanged_breaks_the_signature() -> None:
    content = make_list([ALICE])
    entry = content.devices[0]
    swapped = replace(
        entry,
        device_signing_key=DeviceSigningKey(entry.identity_key.raw),
        identity_key=IdentityKey(entry.device_signing_key.raw),
    )
    forged = replace(sign_list(content, ALICE.account), unverified=replace(content, devices=(swapped,)))

    with pytest.raises(InvalidSignatureError):
        forged.verify(ALICE.address.user_id)


def test_two_devices_with_their_ids_exchanged_break_the_signature() -> None:
    content = make_list([ALICE, ALICE_PHONE])
    first, second = content.devices
    exchanged = (replace(second, device_id=first.device_id), replace(first, device_id=second.device_id))
    forged = replace(sign_list(content, ALICE.account), unverified=replace(content, devices=exchanged))

    with pytest.raises(InvalidSignatureError):
        forged.verify(ALICE.address.user_id)


def test_the_prekeys_of_a_device_do_not_verify_under_the_id_of_another_with_the_same_key() -> None:
    # A server that lists one device's signing key under two ids gains nothing: the id is signed too.
    twin = replace(ALICE_PHONE, signing=ALICE.signing)
    bundle = replace(ALICE.bundle(), address=twin.address)

    with pytest.raises(InvalidSignatureError):
        bundle.verify(verified_list(ALICE, twin), NOW)


@pytest.mark.parametrize("user", ["bob", "ALICE", "alice/"])
def test_a_device_id_means_nothing_without_its_user(user: str) -> None:
    with pytest.raises(UnlistedDeviceError):
        verified_list(ALICE).listed(DeviceAddress(UserId(user), ALICE.address.device_id))
