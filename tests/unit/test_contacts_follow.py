"""Contacts and their verification follow to a linked device; what is decided on one device is known on the others."""

from dataclasses import replace
from typing import NamedTuple

import pytest

from e2ee import contact_sharing
from e2ee.account import Account
from e2ee.errors import AccountKeyChangedError, DeviceListForkError, InvalidSignatureError
from e2ee.limits import MAX_APPLICATION_DATA, MAX_LINK_BODY, MAX_TRUST_DECISIONS
from e2ee.messenger import Reception
from e2ee.notices import AccountKeysDiffer, ContactsShared, ContactsTold, DeviceListsForked
from e2ee.ports import Table
from e2ee.private_keys import DeviceSigningKeyPair, IdentityKeyPair
from e2ee.stores import records, trust_records
from e2ee.stores.records import Contact
from e2ee.stores.trust_records import Decision, TrustDecision, TrustPolicy
from e2ee.wire.contacts import ContactEntry, DecisionEntry, LinkedContacts
from e2ee.wire.content import ContentKind
from e2ee.wire.device_list import ListedDevice, SignedDeviceList
from e2ee.wire.envelope import Envelope, Lane
from e2ee.wire.identifiers import DeviceId, UserId, parse_user_id
from tests.world import START, Device, World, content_from, talk, unchanged

HOT = (Table.SESSIONS, Table.BODY_HASHES, Table.MESSAGE_IDS)
"""What every message changes."""


class Duo(NamedTuple):
    """Alice's phone knows and has verified bob. Her laptop is not linked yet."""

    world: World
    phone: Device
    bob: Device


@pytest.fixture
def duo() -> Duo:
    world = World()
    phone, bob = (world.device(user, one_time_prekeys=False) for user in ("alice", "bob"))
    talk(phone, bob)
    verify(phone, bob.user_id)
    return Duo(world, phone, bob)


def verify(device: Device, user_id: UserId) -> None:
    book = device.messenger.contact_book
    book.compare(user_id, book.safety_number(user_id))
    device.post()


def link(duo: Duo) -> Device:
    laptop = duo.world.further_device(duo.phone)
    duo.world.settle()
    return laptop


def contact(device: Device, user: str) -> Contact:
    known = device.messenger.contact(UserId(user))
    assert known is not None
    return known


def test_a_linked_device_knows_the_contacts_and_whom_a_person_verified(duo: Duo) -> None:
    laptop = duo.world.further_device(duo.phone)
    assert laptop.messenger.contact_book.users() == ()
    notices = duo.world.settle()
    assert ContactsTold(laptop.address) in notices
    assert ContactsShared(duo.phone.address, (duo.bob.user_id,)) in notices
    assert contact(laptop, "bob") == replace(contact(duo.phone, "bob"), queried_at=0, heard_seq=0)
    assert contact(laptop, "bob").verified
    assert laptop.messenger.contact_book.decisions() == duo.phone.messenger.contact_book.decisions()
    number = duo.bob.messenger.contact_book.safety_number(UserId("alice"))
    assert laptop.messenger.contact_book.safety_number(duo.bob.user_id) == number


def test_they_travel_in_lane_3_and_the_application_is_shown_nothing(duo: Duo) -> None:
    laptop = duo.world.further_device(duo.phone)
    duo.phone.tend()
    [envelope] = duo.world.network.in_flight
    assert Envelope.decode(envelope).lane is Lane.BULK
    duo.world.settle()
    assert laptop.messenger.inbound() == []


def test_a_device_is_told_once_whatever_happens_to_the_process_in_between(duo: Duo) -> None:
    laptop = duo.world.further_device(duo.phone)
    duo.phone.restart()
    duo.phone.connect()
    told = [each for each in duo.world.settle() if isinstance(each, ContactsTold)]
    assert told == [ContactsTold(laptop.address)]
    duo.phone.restart()
    duo.phone.connect()
    assert duo.world.settle() == []


def test_one_that_leaves_before_it_was_told_is_forgotten(duo: Duo) -> None:
    duo.world.further_device(duo.phone)
    entry = duo.phone.messenger.own_device_list().content.device(duo.phone.address.device_id)
    assert entry is not None
    duo.phone.change_list(entry)
    assert duo.phone.tend().notices == ()
    with duo.phone.store.read() as tx:
        assert trust_records.contacts_owed(tx) == []


def test_what_could_not_be_read_is_asked_for_and_comes_again(duo: Duo) -> None:
    laptop = duo.world.further_device(duo.phone)
    talk(duo.phone, laptop)
    laptop.forget_sessions(duo.phone)
    duo.world.settle()
    assert laptop.messenger.contact_book.users() == (duo.bob.user_id,)


def people(duo: Duo, number: int) -> None:
    """Let the phone know many people, each with the longest names, lists and histories there are."""
    random = duo.world.random.randbytes
    with duo.phone.store.write() as tx:
        for at in range(number):
            user_id = parse_user_id(f"{at:03}".ljust(128, "x"))
            account = Account.generate(user_id, random)
            devices = [
                ListedDevice(
                    DeviceId(bytes((each,)) * 16),
                    DeviceSigningKeyPair.generate(random).public,
                    IdentityKeyPair.generate(random).public,
                )
                for each in range(10)
            ]
            newest = account.first_device_list(START).content
            signed = account.sign_device_list(replace(newest, devices=tuple(devices)))
            records.save_contact(tx, Contact(user_id, newest.account_key, signed))
            for when in range(MAX_TRUST_DECISIONS):
                decision = Decision.VERIFIED if when % 2 else Decision.VERIFICATION_WITHDRAWN
                trust_records.record(tx, TrustDecision(user_id, decision, newest.account_key, START + when))


def test_many_contacts_take_several_messages_each_below_64_kib(duo: Duo) -> None:
    people(duo, 60)
    with duo.phone.store.read() as tx:
        bodies = list(contact_sharing.everything(tx, duo.phone.user_id))
    assert len(bodies) > 1
    assert max(map(len, bodies)) <= MAX_LINK_BODY
    content = content_from(duo.phone, duo.bob, kind=ContentKind.LINK, body=bytes(MAX_LINK_BODY))
    whole = replace(content, device_list=duo.phone.messenger.own_device_list().signed)
    assert len(whole.encode()) < MAX_APPLICATION_DATA
    laptop = link(duo)
    assert laptop.messenger.contact_book.users() == duo.phone.messenger.contact_book.users()
    assert len(laptop.messenger.contact_book.users()) == 61


def test_what_is_verified_or_withdrawn_later_is_known_on_the_other_device_too(duo: Duo) -> None:
    laptop = link(duo)
    laptop.messenger.contact_book.withdraw(duo.bob.user_id)
    laptop.post()
    duo.world.settle()
    assert not contact(duo.phone, "bob").verified
    verify(duo.phone, duo.bob.user_id)
    duo.world.settle()
    assert contact(laptop, "bob").verified
    numbers = {Decision(each.decision) for each in laptop.messenger.contact_book.decisions(duo.bob.user_id)}
    assert numbers == {Decision.PINNED, Decision.VERIFIED, Decision.VERIFICATION_WITHDRAWN}


def test_the_later_decision_counts_in_whatever_order_the_words_come_and_however_wrong_a_clock_is(duo: Duo) -> None:
    laptop = duo.world.further_device(duo.phone, skew=-86_400_000)
    duo.world.settle()
    laptop.messenger.contact_book.withdraw(duo.bob.user_id)
    laptop.post()
    withdrawn = duo.world.network.in_flight.pop()
    with laptop.store.read() as tx:
        withdrawal = contact_sharing.one_contact(tx, duo.bob.user_id)
    with duo.phone.store.read() as tx:
        verification = contact_sharing.one_contact(tx, duo.bob.user_id)
    duo.phone.receive(withdrawn)
    assert not contact(duo.phone, "bob").verified
    tell(laptop, duo.phone, verification)
    assert not contact(duo.phone, "bob").verified
    tell(duo.phone, laptop, withdrawal)
    assert not contact(laptop, "bob").verified


def test_of_two_decisions_of_one_moment_the_withdrawal_counts(duo: Duo) -> None:
    laptop = link(duo)
    laptop.messenger.contact_book.withdraw(duo.bob.user_id)
    at = laptop.messenger.contact_book.decisions(duo.bob.user_id)[-1].at
    entry = contact_sharing.entry_of(contact(duo.phone, "bob"))
    word = DecisionEntry(entry.user_id, Decision.VERIFIED, entry.account_key, at)
    assert entry.verified
    tell(duo.phone, laptop, LinkedContacts(0, (entry,), (word,)).encode())
    assert not contact(laptop, "bob").verified


def test_a_device_owes_itself_nothing(duo: Duo) -> None:
    laptop = link(duo)
    both = laptop.messenger.own_device_list().content.devices
    laptop.change_list(laptop.messenger.account.listed)
    laptop.change_list(*both)
    with duo.phone.store.read() as tx:
        assert trust_records.contacts_owed(tx) == []
    with laptop.store.read() as tx:
        assert trust_records.contacts_owed(tx) == [duo.phone.address]


def test_the_stricter_policy_follows_to_a_new_device_and_the_laxer_one_never_does(duo: Duo) -> None:
    duo.phone.messenger.contact_book.set_policy(TrustPolicy.VERIFIED_ONLY)
    laptop = link(duo)
    assert laptop.messenger.contact_book.policy() is TrustPolicy.VERIFIED_ONLY
    laptop.messenger.contact_book.set_policy(TrustPolicy.FIRST_USE)
    tell(duo.phone, laptop, LinkedContacts(TrustPolicy.VERIFIED_ONLY, (), ()).encode())
    assert laptop.messenger.contact_book.policy() is TrustPolicy.FIRST_USE
    third = duo.world.further_device(duo.phone)
    tell(duo.phone, third, LinkedContacts(TrustPolicy.UNATTENDED, (), ()).encode())
    assert third.messenger.contact_book.policy() is TrustPolicy.FIRST_USE


def test_a_fork_that_one_device_saw_stops_the_other_one_too(duo: Duo) -> None:
    forked = replace(contact(duo.phone, "bob"), forked=True)
    with duo.phone.store.write() as tx:
        records.save_contact(tx, forked)
    laptop = link(duo)
    with pytest.raises(DeviceListForkError):
        laptop.messenger.send(duo.bob.user_id, "hello")


def test_a_fork_that_is_seen_later_stops_a_device_that_knows_the_contact(duo: Duo) -> None:
    laptop = link(duo)
    entry = contact_sharing.entry_of(replace(contact(duo.phone, "bob"), forked=True))
    assert not contact(laptop, "bob").forked
    told = [tell(duo.phone, laptop, LinkedContacts(0, (entry,), ()).encode()).notices for _ in range(2)]
    assert contact(laptop, "bob").forked
    assert [DeviceListsForked(duo.bob.user_id) in each for each in told] == [True, False]


def test_a_closed_key_stays_closed_on_a_new_device(duo: Duo) -> None:
    reset = duo.bob.messenger.account_reset.draft()
    thief = duo.bob.messenger.account.sign_device_list(
        replace(reset.closing.content, devices=(duo.bob.messenger.account.listed,), seq=reset.closing.content.seq + 9)
    )
    book = duo.phone.messenger.contact_book
    with pytest.raises(AccountKeyChangedError):
        duo.phone.messenger.learn_device_lists(duo.bob.user_id, [reset.closing.signed, reset.first.signed])
    change = book.change(duo.bob.user_id)
    assert change is not None
    book.accept_change(duo.bob.user_id, change.new_safety_number)
    laptop = link(duo)
    assert contact(laptop, "bob").account_key == reset.first.content.account_key
    known = contact(laptop, "bob")
    with unchanged(laptop, Table.CONTACTS), pytest.raises(InvalidSignatureError, match="closed"):
        laptop.messenger.learn_device_lists(duo.bob.user_id, [thief.signed])
    assert contact(laptop, "bob") == replace(known, queried_at=laptop.clock())


# --- what is known first-hand --------------------------------------------------------------------------------


def tell(device: Device, other: Device, body: bytes) -> Reception:
    """Send a link content of any bytes, as a device of ours that obeys nobody."""
    if not device.sessions(other):
        device.start_session(other)
    content = content_from(device, other, kind=ContentKind.LINK, body=body)
    if device.sending_session(other).carries_handshake:
        content = replace(content, device_list=device.messenger.own_device_list().signed)
    return other.receive(device.seal(other, content.encode()))


def impostor(duo: Duo, seq: int) -> SignedDeviceList:
    """A list of a bob with another account key, as a lying server serves it at first contact."""
    stranger = duo.world.device("bob", listed=False, one_time_prekeys=False)
    honest = stranger.messenger.own_device_list().content
    previous = honest.previous_hash if seq == 1 else honest.hash()
    return stranger.messenger.account.sign_device_list(replace(honest, seq=seq, previous_hash=previous)).signed


@pytest.mark.parametrize("seq", [1, 7])
def test_a_key_that_another_device_verified_takes_the_place_of_one_that_was_merely_seen_first_and_a_human_decides(
    duo: Duo, seq: int
) -> None:
    laptop = duo.world.further_device(duo.phone)
    lie = impostor(duo, seq)
    laptop.messenger.learn_device_lists(duo.bob.user_id, [lie])
    notices = duo.world.settle()
    assert AccountKeysDiffer(duo.bob.user_id) in notices
    known = contact(laptop, "bob")
    assert (known.account_key, known.verified) == (contact(duo.phone, "bob").account_key, True)
    assert known.changed is not None
    assert known.changed.signed == lie
    with pytest.raises(AccountKeyChangedError) as stopped:
        laptop.messenger.send(duo.bob.user_id, "hello")
    assert stopped.value.old_safety_number == duo.bob.messenger.contact_book.safety_number(UserId("alice"))
    laptop.messenger.contact_book.decline_change(duo.bob.user_id)
    assert contact(laptop, "bob").verified


def test_sessions_under_a_key_end_when_another_takes_its_place_whatever_device_ids_a_liar_chose(duo: Duo) -> None:
    laptop = duo.world.further_device(duo.phone)
    talk(laptop, duo.bob)  # whom the laptop has merely seen first: here the liar, with the device id of the honest one
    honest = duo.world.device("bob", listed=False, one_time_prekeys=False).messenger.account
    entry = replace(honest.listed, device_id=duo.bob.address.device_id)
    theirs = honest.sign_device_list(replace(honest.first_device_list(START).content, devices=(entry,)))
    verified = ContactEntry(duo.bob.user_id, honest.party.account_key, True, False, theirs.signed)
    tell(duo.phone, laptop, LinkedContacts(0, (verified,), ()).encode())
    laptop.messenger.contact_book.decline_change(duo.bob.user_id)
    assert contact(laptop, "bob").verified
    assert laptop.messenger.missing_sessions(duo.bob.user_id) == (duo.bob.address,)
    assert laptop.sessions(duo.bob) == []


def test_a_key_that_was_verified_here_stays_pinned_and_the_other_one_waits(duo: Duo) -> None:
    laptop = duo.world.further_device(duo.phone)
    laptop.messenger.learn_device_lists(duo.bob.user_id, [impostor(duo, 1)])
    verify(laptop, duo.bob.user_id)
    ours = contact(laptop, "bob")
    assert AccountKeysDiffer(duo.bob.user_id) in duo.world.settle()
    known = contact(laptop, "bob")
    assert (known.account_key, known.verified) == (ours.account_key, True)
    assert known.changed is not None
    assert known.changed.content.account_key == contact(duo.phone, "bob").account_key
    with pytest.raises(AccountKeyChangedError):
        laptop.messenger.send(duo.bob.user_id, "hello")


def test_not_even_a_policy_accepts_a_key_because_another_device_knows_it(duo: Duo) -> None:
    laptop = duo.world.further_device(duo.phone)
    laptop.messenger.contact_book.set_policy(TrustPolicy.UNATTENDED)
    laptop.messenger.learn_device_lists(duo.bob.user_id, [impostor(duo, 1)])
    duo.world.settle()
    with pytest.raises(AccountKeyChangedError):
        laptop.messenger.send(duo.bob.user_id, "hello")


@pytest.mark.parametrize("closing", [True, False], ids=["closed", "closing list held back"])
def test_the_word_of_a_device_that_missed_a_change_is_out_of_date(duo: Duo, closing: bool) -> None:
    laptop = link(duo)
    with duo.phone.store.read() as tx:
        stale = contact_sharing.one_contact(tx, duo.bob.user_id)
    reset = duo.bob.messenger.account_reset.draft()
    lists = [reset.closing.signed, reset.first.signed] if closing else [reset.first.signed]
    with pytest.raises(AccountKeyChangedError):
        laptop.messenger.learn_device_lists(duo.bob.user_id, lists)
    change = laptop.messenger.contact_book.change(duo.bob.user_id)
    assert change is not None
    laptop.messenger.contact_book.accept_change(duo.bob.user_id, change.new_safety_number)
    accepted = contact(laptop, "bob")
    assert not any(isinstance(each, AccountKeysDiffer) for each in tell(duo.phone, laptop, stale).notices)
    assert contact(laptop, "bob") == accepted
    with duo.world.devices[laptop.address].store.read() as tx:
        word = contact_sharing.one_contact(tx, duo.bob.user_id)
    assert AccountKeysDiffer(duo.bob.user_id) in tell(laptop, duo.phone, word).notices
    waiting = contact(duo.phone, "bob")
    assert waiting.account_key != accepted.account_key
    assert waiting.changed is not None
    assert waiting.changed.content.account_key == accepted.account_key


def test_a_key_that_is_known_to_be_closed_does_not_come_back_by_the_word_of_a_device(duo: Duo) -> None:
    laptop = duo.world.further_device(duo.phone)
    before = contact_sharing.entry_of(contact(duo.phone, "bob"))
    first = duo.bob.messenger.account_reset.draft().first
    after = ContactEntry(duo.bob.user_id, first.content.account_key, False, False, first.signed)
    closed = DecisionEntry(duo.bob.user_id, Decision.KEY_CLOSED, before.account_key, START)
    tell(duo.phone, laptop, LinkedContacts(0, (after,), (closed,)).encode())
    known = contact(laptop, "bob")
    tell(duo.phone, laptop, LinkedContacts(0, (before,), ()).encode())
    assert contact(laptop, "bob") == known
    assert (known.account_key, known.changed) == (first.content.account_key, None)


def test_a_newer_device_list_stays_and_an_older_one_is_made_up_for(duo: Duo) -> None:
    laptop = link(duo)
    before = contact(laptop, "bob").device_list
    duo.world.further_device(duo.bob)
    duo.phone.meet(duo.bob)
    with duo.phone.store.read() as tx:
        newer = contact_sharing.one_contact(tx, duo.bob.user_id)
    with laptop.store.read() as tx:
        older = contact_sharing.one_contact(tx, duo.bob.user_id)
    newest = contact(duo.phone, "bob").device_list
    assert newest != before
    tell(laptop, duo.phone, older)
    assert contact(duo.phone, "bob").device_list == newest
    tell(duo.phone, laptop, newer)
    assert contact(laptop, "bob").device_list == newest


def test_lists_that_one_device_has_not_seen_may_come_from_another(duo: Duo) -> None:
    laptop = link(duo)
    devices = duo.bob.messenger.own_device_list().content.devices
    bodies = []
    for _ in range(2):
        duo.bob.change_list(*devices)
        duo.phone.meet(duo.bob)
        with duo.phone.store.read() as tx:
            bodies.append(contact_sharing.one_contact(tx, duo.bob.user_id))
    book = laptop.messenger.contact_book
    tell(duo.phone, laptop, bodies[1])
    assert book.lacks_lists(duo.bob.user_id)
    assert not book.is_verified(duo.bob.user_id)
    tell(duo.phone, laptop, bodies[0])
    assert book.is_verified(duo.bob.user_id)


def test_a_list_that_contradicts_ours_is_a_fork(duo: Duo) -> None:
    laptop = link(duo)
    own = duo.bob.messenger.own_device_list().content
    other = duo.bob.messenger.account.sign_device_list(replace(own, created_at=own.created_at + 1))
    entry = ContactEntry(duo.bob.user_id, own.account_key, True, False, other.signed)
    tell(duo.phone, laptop, LinkedContacts(0, (entry,), ()).encode())
    assert contact(laptop, "bob").forked


def test_a_key_that_is_pinned_here_is_not_closed_by_anybodys_word(duo: Duo) -> None:
    laptop = link(duo)
    known = contact(laptop, "bob")
    entry = contact_sharing.entry_of(known)
    word = DecisionEntry(known.user_id, Decision.KEY_CLOSED, known.account_key, START)
    tell(duo.phone, laptop, LinkedContacts(0, (entry,), (word,)).encode())
    with laptop.store.read() as tx:
        assert not trust_records.was_closed(tx, known.user_id, known.account_key)


def test_decisions_of_a_later_release_mean_nothing_and_hold_up_nothing(duo: Duo) -> None:
    laptop = duo.world.further_device(duo.phone)
    entry = contact_sharing.entry_of(contact(duo.phone, "bob"))
    later = DecisionEntry(entry.user_id, 99, entry.account_key, START)
    tell(duo.phone, laptop, LinkedContacts(0, (entry,), (later,)).encode())
    assert laptop.messenger.contact_book.users() == (duo.bob.user_id,)
    with unchanged(laptop, *HOT):
        tell(duo.phone, laptop, b"\x02 whatever it says")


def test_a_list_of_devices_that_is_the_last_of_its_key_closes_it(duo: Duo) -> None:
    closing = duo.bob.messenger.account_reset.draft().closing
    duo.phone.messenger.learn_device_lists(duo.bob.user_id, [closing.signed])
    laptop = link(duo)
    with laptop.store.read() as tx:
        assert trust_records.was_closed(tx, duo.bob.user_id, closing.content.account_key)
