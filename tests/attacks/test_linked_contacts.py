"""Contacts that somebody tells us of: believed of our own listed devices, and refused whole if a part is wrong."""

from dataclasses import replace

import pytest

from e2ee import contact_sharing, session as sessions
from e2ee.errors import E2EEError, ForbiddenContentError, InvalidSignatureError, MalformedMessageError
from e2ee.limits import MAX_LINK_BODY
from e2ee.messenger import Reception
from e2ee.ports import Table
from e2ee.wire.contacts import ContactEntry, DecisionEntry, LinkedContacts
from e2ee.wire.content import ContentKind
from e2ee.wire.identifiers import UserId
from tests.world import START, Device, World, content_from, flip, talk, unchanged

CAROL = UserId("carol")


@pytest.fixture
def trio() -> tuple[Device, Device, Device]:
    """Alice's phone and laptop, which have told each other everything, and bob."""
    world = World()
    phone, bob = (world.device(user, one_time_prekeys=False) for user in ("alice", "bob"))
    talk(phone, bob)
    laptop = world.further_device(phone)
    talk(phone, laptop)
    world.settle()
    return phone, laptop, bob


def carol(world: World, **changes: object) -> ContactEntry:
    """A contact that nobody here knows, as somebody might tell of it."""
    device = world.device(CAROL, listed=False, one_time_prekeys=False)
    own = device.messenger.own_device_list()
    entry = ContactEntry(CAROL, own.content.account_key, True, False, own.signed)
    return replace(entry, **changes)  # type: ignore[arg-type]  # names and types are the test's


def tell(sender: Device, recipient: Device, body: bytes) -> Reception:
    content = content_from(sender, recipient, kind=ContentKind.LINK, body=body)
    return recipient.receive(sender.seal(recipient, content.encode()))


def refused(sender: Device, recipient: Device, body: bytes) -> E2EEError | None:
    with unchanged(recipient, Table.UNREADABLE):
        error = tell(sender, recipient, body).error
    assert recipient.messenger.contact(CAROL) is None
    return error


def test_contacts_from_another_account_are_refused(trio: tuple[Device, Device, Device]) -> None:
    phone, _, bob = trio
    body = LinkedContacts(0, (carol(phone.world),), ()).encode()
    assert isinstance(refused(bob, phone, body), ForbiddenContentError)
    assert isinstance(refused(bob, phone, b""), ForbiddenContentError)


def test_contacts_from_a_second_account_of_our_own_user_id_are_refused(trio: tuple[Device, Device, Device]) -> None:
    phone, _, _ = trio
    impostor = phone.world.device("alice", listed=False, one_time_prekeys=False)
    own_list = impostor.messenger.own_device_list()
    body = LinkedContacts(0, (carol(phone.world),), ()).encode()
    content = content_from(phone, phone, kind=ContentKind.LINK, body=body, sender_list=own_list.position)
    bundle = phone.bundle().verify(phone.messenger.own_device_list(), phone.world.now)
    account, clock = impostor.messenger.account, sessions.Clock(phone.world.now, phone.world.now)
    session = sessions.start_as_initiator(
        account.party, account.identity_key_pair, bundle, clock, phone.world.random.randbytes
    )
    first = impostor.seal(phone, replace(content, device_list=own_list.signed).encode(), session)
    with unchanged(phone, Table.UNREADABLE):
        assert isinstance(phone.receive(first).error, ForbiddenContentError)
    assert phone.messenger.contact(CAROL) is None


def test_contacts_from_a_removed_device_of_ours_are_refused(trio: tuple[Device, Device, Device]) -> None:
    phone, laptop, _ = trio
    body = LinkedContacts(0, (carol(phone.world),), ()).encode()
    content = content_from(laptop, phone, kind=ContentKind.LINK, body=body)
    sealed = laptop.seal(phone, content.encode())
    entry = phone.messenger.own_device_list().content.device(phone.address.device_id)
    assert entry is not None
    phone.change_list(entry)
    with unchanged(phone, Table.UNREADABLE):
        assert isinstance(phone.receive(sealed).error, ForbiddenContentError)
    assert phone.messenger.contact(CAROL) is None


def test_a_removed_device_is_told_nothing(trio: tuple[Device, Device, Device]) -> None:
    phone, laptop, bob = trio
    entry = phone.messenger.own_device_list().content.device(phone.address.device_id)
    assert entry is not None
    phone.change_list(entry)
    book = phone.messenger.contact_book
    assert book.compare(bob.user_id, book.safety_number(bob.user_id)) is False
    phone.post()
    assert laptop.address not in {recipient for recipient, _ in phone.world.network.take()}


def test_a_body_that_is_cut_anywhere_or_goes_on_is_refused(trio: tuple[Device, Device, Device]) -> None:
    phone, laptop, _ = trio
    entry = carol(phone.world)
    body = LinkedContacts(0, (entry,), (DecisionEntry(CAROL, 5, entry.account_key, START),)).encode()
    for at in (*range(0, len(body), 7), len(body) - 1):
        assert isinstance(refused(laptop, phone, body[:at]), MalformedMessageError)
    assert isinstance(refused(laptop, phone, body + b"\0"), MalformedMessageError)


def test_counts_beyond_the_bytes_and_a_body_beyond_its_bound_are_refused(trio: tuple[Device, Device, Device]) -> None:
    phone, laptop, _ = trio
    assert isinstance(refused(laptop, phone, b"\x01\x00\xff\xff\x00\x00"), MalformedMessageError)
    assert isinstance(refused(laptop, phone, b"\x01\x00\x00\x00\xff\xff"), MalformedMessageError)
    long = b"\x02" + bytes(MAX_LINK_BODY)
    assert isinstance(refused(laptop, phone, long), MalformedMessageError)
    assert tell(laptop, phone, long[:-1]).error is None


def test_a_contact_that_comes_twice_or_out_of_order_is_refused(trio: tuple[Device, Device, Device]) -> None:
    phone, laptop, _ = trio
    entry, known = carol(phone.world), phone.messenger.contact(UserId("bob"))
    assert known is not None
    bob = contact_sharing.entry_of(known)
    for contacts in ((entry, entry), (entry, replace(entry, verified=False)), (entry, bob)):
        assert isinstance(refused(laptop, phone, LinkedContacts(0, contacts, ()).encode()), MalformedMessageError)


def test_a_decision_about_somebody_who_is_not_told_of_is_refused(trio: tuple[Device, Device, Device]) -> None:
    phone, laptop, _ = trio
    entry = carol(phone.world)
    about_bob = DecisionEntry(UserId("bob"), 7, entry.account_key, START)
    body = LinkedContacts(0, (entry,), (about_bob,)).encode()
    assert isinstance(refused(laptop, phone, body), MalformedMessageError)


def test_a_contact_whose_list_its_key_did_not_sign_is_refused_with_all_that_came_with_it(
    trio: tuple[Device, Device, Device],
) -> None:
    phone, laptop, bob = trio
    entry = carol(phone.world)
    forged = replace(entry.device_list, signature=flip(entry.device_list.signature, 9))
    dave = replace(entry, user_id=UserId("dave"))
    bobs = bob.messenger.own_device_list()
    strangers = ContactEntry(CAROL, bobs.content.account_key, True, False, bobs.signed)
    known = phone.messenger.contact(UserId("bob"))
    assert known is not None
    good = contact_sharing.entry_of(replace(known, verified=True))
    for contacts in (
        (good, replace(entry, device_list=forged)),
        (good, replace(entry, account_key=bobs.content.account_key)),
        (good, strangers),
        (good, dave),
    ):
        error = refused(laptop, phone, LinkedContacts(0, contacts, ()).encode())
        assert isinstance(error, InvalidSignatureError)


def test_our_own_user_is_no_contact_that_a_device_may_tell_of(trio: tuple[Device, Device, Device]) -> None:
    phone, laptop, _ = trio
    own = phone.messenger.own_device_list()
    ourselves = ContactEntry(UserId("alice"), own.content.account_key, True, True, own.signed)
    assert isinstance(refused(laptop, phone, LinkedContacts(0, (ourselves,), ()).encode()), InvalidSignatureError)


def test_a_message_that_tells_twice_is_a_duplicate(trio: tuple[Device, Device, Device]) -> None:
    phone, laptop, _ = trio
    content = content_from(
        laptop, phone, kind=ContentKind.LINK, body=LinkedContacts(0, (carol(phone.world),), ()).encode()
    )
    sealed = laptop.seal(phone, content.encode())
    assert phone.receive(sealed).error is None
    with unchanged(phone):
        assert phone.receive(sealed).error is not None
