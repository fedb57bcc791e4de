"""Contacts as one device tells another of them: their bytes, bounds, refusals, and whose list a contact's is."""

from dataclasses import replace
from itertools import product

import pytest

from e2ee.errors import InvalidSignatureError, MalformedMessageError
from e2ee.limits import MAX_LINK_BODY
from e2ee.wire.contacts import (
    ContactEntry,
    DecisionEntry,
    LinkedContacts,
    check_contacts_ascend,
    decode_linked,
)
from e2ee.wire.identifiers import UserId
from tests.wire_objects import NOW, Device, make_device, make_list, sign_list

ALICE = UserId("alice")
BOB, CAROL = make_device("bob"), make_device("carol")


def entry(device: Device, verified: bool = True, forked: bool = False) -> ContactEntry:
    signed = sign_list(make_list([device]), device.account)
    return ContactEntry(device.address.user_id, device.account.public, verified, forked, signed)


DECISION = DecisionEntry(BOB.address.user_id, 5, BOB.account.public, NOW)
LINKED = LinkedContacts(2, (entry(BOB), entry(CAROL)), (DECISION, replace(DECISION, decision=7)))


# --- Bytes ---------------------------------------------------------------------------------------------------


def test_the_layout_of_contacts_and_decisions() -> None:
    one = LinkedContacts(3, (entry(BOB),), (DECISION,))
    signed = entry(BOB).device_list.encode()
    assert one.encode() == b"".join(
        (
            b"\x01\x03",
            b"\x00\x01",
            b"\x03bob" + BOB.account.public.raw + b"\x01\x00" + len(signed).to_bytes(2, "big") + signed,
            b"\x00\x01",
            b"\x03bob" + b"\x05" + BOB.account.public.raw + NOW.to_bytes(8, "big"),
        )
    )


def test_contacts_and_decisions_come_back() -> None:
    for linked in (LINKED, LinkedContacts(0, (), ()), replace(LINKED, policy=255, decisions=())):
        assert decode_linked(linked.encode()) == linked
    for verified, forked in product((False, True), repeat=2):
        linked = LinkedContacts(1, (entry(BOB, verified, forked),), ())
        assert decode_linked(linked.encode()) == linked


def test_a_body_that_is_cut_anywhere_or_goes_on_is_refused() -> None:
    body = LINKED.encode()
    for at in range(len(body)):
        with pytest.raises(MalformedMessageError, match="truncated"):
            decode_linked(body[:at])
    with pytest.raises(MalformedMessageError, match="trailing"):
        decode_linked(body + b"\0")


@pytest.mark.parametrize("flag", [2, 255])
def test_verified_and_forked_are_0_or_1(flag: int) -> None:
    body = LinkedContacts(1, (entry(BOB),), ()).encode()
    for at in (len(b"\x01\x01\x00\x01\x03bob") + 32, len(b"\x01\x01\x00\x01\x03bob") + 33):
        with pytest.raises(MalformedMessageError, match="flag"):
            decode_linked(body[:at] + bytes([flag]) + body[at + 1 :])


@pytest.mark.parametrize("number", [0, 2, 255])
def test_an_unknown_type_means_nothing_within_the_bound_of_a_body(number: int) -> None:
    longest = bytes([number]) + bytes(MAX_LINK_BODY - 1)
    assert decode_linked(longest) is None
    with pytest.raises(MalformedMessageError, match="too long"):
        decode_linked(longest + b"\0")


def test_61440_bytes_are_told_and_a_byte_more_is_a_bug_of_the_caller() -> None:
    assert MAX_LINK_BODY == 61_440
    users = UserId("a"), UserId("ab")
    contacts = tuple(replace(entry(BOB), user_id=user) for user in users)
    room = MAX_LINK_BODY - len(LinkedContacts(0, contacts, ()).encode())
    # A decision about `a` takes 43 bytes, one about `ab` 44.
    short, long = (replace(DECISION, user_id=user) for user in users)
    number, longer = divmod(room, 43)
    full = LinkedContacts(0, contacts, (short,) * (number - longer) + (long,) * longer)
    assert len(full.encode()) == MAX_LINK_BODY
    assert decode_linked(full.encode()) == full
    with pytest.raises(ValueError, match="61441 bytes"):
        replace(full, decisions=(long, *full.decisions[1:])).encode()


# --- Order, and decisions about whom -------------------------------------------------------------------------


def test_contacts_ascend_each_once() -> None:
    bob, carol, dave = entry(BOB), entry(CAROL), entry(make_device("dave"))
    check_contacts_ascend(())
    check_contacts_ascend((bob, carol, dave))
    for contacts in ((carol, bob), (bob, bob), (bob, replace(bob, verified=False)), (bob, dave, carol)):
        with pytest.raises(MalformedMessageError, match="ascend"):
            check_contacts_ascend(contacts)
        with pytest.raises(MalformedMessageError, match="ascend"):
            decode_linked(LinkedContacts(0, contacts, ()).encode())


def test_a_decision_about_somebody_who_is_not_told_of_is_refused() -> None:
    stranger = replace(DECISION, user_id=UserId("dave"))
    for decisions in ((stranger,), (DECISION, stranger), (stranger, DECISION)):
        with pytest.raises(MalformedMessageError, match="not told of"):
            decode_linked(replace(LINKED, decisions=decisions).encode())


# --- Whose list it is ----------------------------------------------------------------------------------------


def test_a_contact_under_the_key_that_signed_its_list_verifies() -> None:
    assert entry(BOB).verify(ALICE).content == make_list([BOB])


def test_a_list_under_another_account_key_is_refused() -> None:
    with pytest.raises(InvalidSignatureError, match="another account key"):
        replace(entry(BOB), account_key=CAROL.account.public).verify(ALICE)


def test_a_list_of_another_user_is_refused() -> None:
    with pytest.raises(InvalidSignatureError, match="another user"):
        replace(entry(BOB), user_id=CAROL.address.user_id).verify(ALICE)


def test_nobody_is_a_contact_of_oneself() -> None:
    with pytest.raises(InvalidSignatureError):
        entry(BOB).verify(BOB.address.user_id)
