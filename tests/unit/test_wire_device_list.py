"""Device lists: what a list may hold, whose it is, and how one follows another."""

from dataclasses import replace

import pytest

from e2ee.errors import (
    DeviceListForkError,
    InvalidPublicKeyError,
    InvalidSignatureError,
    MalformedMessageError,
    UnlistedDeviceError,
)
from e2ee.limits import MAX_DEVICES, MAX_TIMESTAMP
from e2ee.primitives import kdf
from e2ee.wire.codec import Reader
from e2ee.wire.device_list import (
    DEVICE_LIST_LABEL,
    NO_PREVIOUS_LIST,
    DeviceList,
    DeviceListHash,
    ListPosition,
    SignedDeviceList,
    VerifiedDeviceList,
    ordered,
)
from e2ee.wire.identifiers import DeviceAddress, DeviceId, UserId
from tests.wire_objects import make_device, make_list, sign_list, verified_list

ALICE = make_device("alice", 1)
ALICE_PHONE = make_device("alice", 2, ALICE.account)
BOB = make_device("bob")
ENTRY = 16 + 32 + 32
"""Bytes of one listed device."""


# --- What a list may hold ------------------------------------------------------------------------------------


def test_devices_out_of_order_are_refused() -> None:
    both = make_list([ALICE, ALICE_PHONE])

    with pytest.raises(ValueError, match="ascending"):
        replace(both, devices=both.devices[::-1])
    with pytest.raises(MalformedMessageError, match="ascending"):
        DeviceList.decode(Reader(with_last_two_entries_swapped(both)))


def test_a_device_listed_twice_is_refused() -> None:
    one = make_list([ALICE])

    with pytest.raises(ValueError, match="once"):
        replace(one, devices=one.devices * 2)
    # Also with other keys under the same id: a device id keeps its keys for ever.
    with pytest.raises(ValueError, match="once"):
        replace(one, devices=(*one.devices, replace(BOB.listed(), device_id=ALICE.address.device_id)))
    encoded = one.encode()
    twice = encoded[: -ENTRY - 1] + b"\x02" + encoded[-ENTRY:] * 2
    with pytest.raises(MalformedMessageError, match="once"):
        DeviceList.decode(Reader(twice))


def test_a_list_holds_at_most_10_devices() -> None:
    devices = ordered(replace(ALICE.listed(), device_id=DeviceId(bytes([number]) * 16)) for number in range(11))
    full = replace(make_list([ALICE]), devices=devices[:MAX_DEVICES])

    assert DeviceList.decode(Reader(full.encode())) == full
    with pytest.raises(ValueError, match="at most 10"):
        replace(full, devices=devices)
    count_at = len(full.encode()) - MAX_DEVICES * ENTRY - 1
    encoded = bytearray(full.encode() + bytes(ENTRY))
    encoded[count_at] = 11
    with pytest.raises(MalformedMessageError, match="at most 10"):
        DeviceList.decode(Reader(bytes(encoded)))


def test_the_number_of_devices_is_refused_before_their_bytes_are_read() -> None:
    encoded = make_list([], of=ALICE).encode()[:-1] + b"\xff"

    with pytest.raises(MalformedMessageError, match="at most 10"):
        DeviceList.decode(Reader(encoded))


def test_an_empty_list_is_valid_because_it_closes_an_account_key() -> None:
    closing = make_list([], seq=2, of=ALICE)

    assert sign_list(closing, ALICE.account).verify(UserId("alice")).content.devices == ()


def test_seq_starts_at_1_and_only_the_first_list_has_no_predecessor() -> None:
    first, some_hash = make_list([ALICE]), DeviceListHash(b"h" * 32)

    with pytest.raises(ValueError, match="seq"):
        replace(first, seq=0, previous_hash=some_hash)
    with pytest.raises(ValueError, match="previous"):
        replace(first, previous_hash=some_hash)
    with pytest.raises(ValueError, match="previous"):
        replace(first, seq=2)
    seq_at = 1 + len("alice") + 32
    encoded = first.encode()
    for seq in (0, 2):
        with pytest.raises(MalformedMessageError):
            DeviceList.decode(Reader(encoded[:seq_at] + seq.to_bytes(8, "big") + encoded[seq_at + 8 :]))


def test_numbers_of_2_to_the_63_or_more_are_refused() -> None:
    content = make_list([ALICE], seq=2)
    seq_at = 1 + len("alice") + 32
    for at in (seq_at, seq_at + 8 + 32, seq_at + 8 + 32 + 8):
        encoded = content.encode()
        with pytest.raises(MalformedMessageError):
            DeviceList.decode(Reader(encoded[:at] + b"\x80" + encoded[at + 1 :]))
    assert replace(content, seq=MAX_TIMESTAMP).encode()


def test_a_non_canonical_identity_key_is_refused() -> None:
    encoded = make_list([ALICE]).encode()

    with pytest.raises(InvalidPublicKeyError):
        DeviceList.decode(Reader(encoded[:-32] + b"\xff" * 32))


def test_ordered_sorts_as_a_list_wants_it() -> None:
    assert ordered([ALICE_PHONE.listed(), ALICE.listed()]) == (ALICE.listed(), ALICE_PHONE.listed())


# --- Signature and hash --------------------------------------------------------------------------------------


def test_a_signed_list_verifies_for_its_user() -> None:
    signed = sign_list(make_list([ALICE, ALICE_PHONE]), ALICE.account)

    verified = SignedDeviceList.decode(signed.encode()).verify(UserId("alice"))
    assert verified.content == signed.unverified
    assert verified.signed == signed


def test_a_list_of_another_user_is_refused() -> None:
    with pytest.raises(InvalidSignatureError, match="another user"):
        sign_list(make_list([BOB]), BOB.account).verify(UserId("alice"))


@pytest.mark.parametrize("other_user", ["Alice", "alic", "alicee"])
def test_the_user_id_of_a_list_is_compared_exactly(other_user: str) -> None:
    with pytest.raises(InvalidSignatureError):
        sign_list(make_list([ALICE]), ALICE.account).verify(UserId(other_user))


def test_the_signature_covers_every_byte_of_the_list() -> None:
    signed = sign_list(make_list([ALICE, ALICE_PHONE], seq=2), ALICE.account)
    encoded = signed.encode()

    for at in range(len(encoded)):
        changed = encoded[:at] + bytes([encoded[at] ^ 1]) + encoded[at + 1 :]
        with pytest.raises((InvalidSignatureError, MalformedMessageError, InvalidPublicKeyError)):
            SignedDeviceList.decode(changed).verify(UserId("alice"))


def test_a_list_signed_by_a_key_other_than_the_one_it_names_is_refused() -> None:
    with pytest.raises(InvalidSignatureError, match="on device list"):
        sign_list(make_list([ALICE]), BOB.account).verify(UserId("alice"))
    # A device signing key signs prekeys, never lists.
    content = make_list([ALICE])
    by_device = SignedDeviceList(content, ALICE.signing.sign(content.signed_bytes()))
    with pytest.raises(InvalidSignatureError):
        by_device.verify(UserId("alice"))


def test_the_hash_is_over_the_signed_bytes_and_not_the_signature() -> None:
    content = make_list([ALICE])
    signed_bytes = bytes([len(DEVICE_LIST_LABEL)]) + DEVICE_LIST_LABEL + content.encode()

    assert content.signed_bytes() == signed_bytes
    assert content.hash().raw == kdf.sha256(signed_bytes)
    assert content.position == ListPosition(1, content.hash())


def test_lists_that_differ_in_any_field_have_different_hashes() -> None:
    content = make_list([ALICE], seq=2)
    variants = [
        content,
        replace(content, user_id=UserId("alicia")),
        replace(content, account_key=BOB.account.public),
        replace(content, seq=3),
        replace(content, previous_hash=DeviceListHash(b"x" * 32)),
        replace(content, created_at=content.created_at + 1),
        replace(content, expires_at=content.expires_at + 1),
        replace(content, devices=()),
        replace(content, devices=(replace(ALICE.listed(), identity_key=BOB.identity.public),)),
    ]

    assert len({variant.hash() for variant in variants}) == len(variants)


# --- Looking up a device -------------------------------------------------------------------------------------


def test_listed_gives_the_entry_of_a_device() -> None:
    assert verified_list(ALICE, ALICE_PHONE).listed(ALICE_PHONE.address) == ALICE_PHONE.listed()


def test_an_unlisted_device_is_refused() -> None:
    with pytest.raises(UnlistedDeviceError) as unlisted:
        verified_list(ALICE).listed(ALICE_PHONE.address)
    assert unlisted.value.address == str(ALICE_PHONE.address)


def test_the_same_device_id_under_another_user_is_refused() -> None:
    with pytest.raises(UnlistedDeviceError):
        verified_list(ALICE).listed(DeviceAddress(UserId("bob"), ALICE.address.device_id))


def test_a_list_names_the_addresses_of_its_devices() -> None:
    assert make_list([ALICE_PHONE, ALICE]).addresses() == (ALICE.address, ALICE_PHONE.address)
    assert make_list([ALICE]).device(ALICE_PHONE.address.device_id) is None


# --- One list after another ----------------------------------------------------------------------------------


def test_the_direct_successor_follows() -> None:
    first = verified_list(ALICE)
    second = verified_list(ALICE, ALICE_PHONE, seq=2, previous=first.content.hash())

    assert second.follows(first)


def test_the_same_list_does_not_follow_itself() -> None:
    first = verified_list(ALICE)

    assert not first.follows(verified_list(ALICE))


def test_an_older_list_of_the_chain_does_not_follow() -> None:
    first = verified_list(ALICE)
    second = verified_list(ALICE, seq=2, previous=first.content.hash())
    third = verified_list(ALICE, seq=3, previous=second.content.hash())

    assert not first.follows(second)
    assert not first.follows(third)


def test_a_gap_is_accepted_on_the_signature() -> None:
    assert verified_list(ALICE, seq=5).follows(verified_list(ALICE))


def test_the_same_seq_with_another_content_is_a_fork() -> None:
    with pytest.raises(DeviceListForkError) as fork:
        verified_list(ALICE, ALICE_PHONE).follows(verified_list(ALICE))
    assert fork.value.user_id == "alice"


def test_a_direct_successor_of_another_predecessor_is_a_fork() -> None:
    with pytest.raises(DeviceListForkError) as fork:
        verified_list(ALICE, seq=2, previous=DeviceListHash(b"x" * 32)).follows(verified_list(ALICE))
    assert fork.value.user_id == "alice"


def test_a_direct_predecessor_that_the_known_list_does_not_name_is_a_fork() -> None:
    first = verified_list(ALICE)
    second = verified_list(ALICE, seq=2, previous=first.content.hash())

    with pytest.raises(DeviceListForkError):
        verified_list(ALICE, ALICE_PHONE).follows(second)


@pytest.mark.parametrize("other_key", ["signing", "identity"])
def test_a_device_id_that_comes_back_with_another_key_is_a_fork(other_key: str) -> None:
    changed = replace(ALICE, **{other_key: getattr(ALICE_PHONE, other_key)})

    with pytest.raises(DeviceListForkError) as fork:
        verified_list(changed, seq=5).follows(verified_list(ALICE))
    assert fork.value.user_id == "alice"


def test_the_first_list_of_a_new_account_key_follows_the_closing_list_of_the_old_one() -> None:
    closing = sign_list(make_list([], seq=2, of=ALICE), ALICE.account).verify(UserId("alice"))
    reborn = make_device("alice", 3, BOB.account)

    assert verified_list(reborn, seq=3, previous=closing.content.hash()).follows(closing)


def closing_list(seq: int) -> VerifiedDeviceList:
    return sign_list(make_list([], seq=seq, of=ALICE), ALICE.account).verify(UserId("alice"))


def test_a_closing_list_that_is_told_again_is_no_fork() -> None:
    assert not closing_list(3).follows(closing_list(3))
    assert closing_list(3).follows(verified_list(ALICE))
    assert not verified_list(ALICE).follows(closing_list(3))


@pytest.mark.parametrize("gap", [1, 2])
def test_nothing_of_the_same_account_key_follows_its_closing_list_whichever_is_known_first(gap: int) -> None:
    closing = closing_list(2)
    later = verified_list(ALICE, seq=2 + gap, previous=closing.content.hash())

    for seen, known in ((later, closing), (closing, later)):
        with pytest.raises(DeviceListForkError) as fork:
            seen.follows(known)
        assert fork.value.user_id == "alice"


def test_comparing_the_lists_of_two_users_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="two users"):
        verified_list(BOB, seq=2).follows(verified_list(ALICE))


def test_no_previous_list_is_32_zero_bytes() -> None:
    assert NO_PREVIOUS_LIST.raw == bytes(32)


def with_last_two_entries_swapped(content: DeviceList) -> bytes:
    encoded = content.encode()
    return encoded[: -2 * ENTRY] + encoded[-ENTRY:] + encoded[-2 * ENTRY : -ENTRY]
