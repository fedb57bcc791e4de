"""Attack: a stolen device that is listed still, or a server, makes the stores of others grow without end
(docs/attacks.md).

What is bounded must not let go of what counts: a verification that was withdrawn stays withdrawn.
"""

from dataclasses import replace
from typing import Final

import pytest

from e2ee import contact_sharing, history, trust
from e2ee.account import Account
from e2ee.errors import AccountKeyChangedError, InvalidSignatureError
from e2ee.limits import MAX_CLOSED_KEYS_TOLD, MAX_TIMESTAMP, MAX_TRUST_DECISIONS
from e2ee.ports import Table
from e2ee.stores import records, session_records, trust_records
from e2ee.stores.history_records import FOREVER
from e2ee.stores.records import Contact
from e2ee.stores.trust_records import Decision, TrustDecision
from e2ee.wire.contacts import ContactEntry, DecisionEntry, LinkedContacts, decode_linked
from e2ee.wire.device_list import DeviceListHash, SignedDeviceList
from e2ee.wire.identifiers import MessageId, UserId
from e2ee.wire.public_keys import AccountKey
from tests.world import START, Device, World, talk

ALICE, BOB, CAROL = UserId("alice"), UserId("bob"), UserId("carol")
FLOOD: Final = 3 * MAX_TRUST_DECISIONS
SOME_HASH: Final = DeviceListHash(b"\x01" * 32)


@pytest.fixture
def phone() -> Device:
    """Alice's phone, which compared numbers with bob and took that back."""
    world = World("floods")
    phone, bob = world.device("alice", one_time_prekeys=False), world.device("bob", one_time_prekeys=False)
    talk(phone, bob)
    book = phone.messenger.contact_book
    book.compare(BOB, book.safety_number(BOB))
    world.wait(10)
    book.withdraw(BOB)
    return phone


def bob_at(device: Device) -> Contact:
    contact = device.messenger.contact(BOB)
    assert contact is not None
    return contact


def a_key(at: int) -> AccountKey:
    return AccountKey(at.to_bytes(32, "big"))


def hear(device: Device, decisions: list[DecisionEntry], *, verified: bool = False) -> None:
    """Take in what a device of ours says, in bodies as long as may be."""
    entry = contact_sharing.entry_of(replace(bob_at(device), verified=verified))
    for at in range(0, len(decisions), 1000):
        linked = decode_linked(LinkedContacts(0, (entry,), tuple(decisions[at : at + 1000])).encode())
        assert linked is not None
        with device.store.write() as tx:
            contact_sharing.believe(tx, ALICE, linked, device.world.now)


def lines(device: Device) -> list[TrustDecision]:
    return device.messenger.contact_book.decisions(BOB)


def all_kinds(key: AccountKey) -> list[DecisionEntry]:
    """Decisions of every kind about many keys, and many about one, all before the verification was taken back."""
    others = [DecisionEntry(BOB, kind, a_key(at), START + at) for at in range(100) for kind in Decision]
    return others + [DecisionEntry(BOB, kind, key, at) for at in range(FLOOD) for kind in (5, 6)]


def test_decisions_that_a_device_tells_are_bounded_and_bring_no_verification_back(phone: Device) -> None:
    key = bob_at(phone).account_key
    verified = next(each for each in lines(phone) if each.decision is Decision.VERIFIED)
    hear(phone, all_kinds(key))
    assert len(lines(phone)) <= MAX_TRUST_DECISIONS
    assert sum(each.decision is Decision.KEY_CLOSED for each in lines(phone)) <= MAX_CLOSED_KEYS_TOLD
    hear(phone, [DecisionEntry(BOB, Decision.VERIFIED, key, verified.at)], verified=True)
    assert not bob_at(phone).verified


def test_what_a_person_decided_stays_in_a_full_history(phone: Device) -> None:
    hear(phone, all_kinds(bob_at(phone).account_key))
    book = phone.messenger.contact_book
    for _ in range(5):
        book.compare(BOB, book.safety_number(BOB))
        book.withdraw(BOB)
    assert [each.decision for each in lines(phone)[-2:]] == [Decision.VERIFIED, Decision.VERIFICATION_WITHDRAWN]
    assert len(lines(phone)) <= MAX_TRUST_DECISIONS
    assert sum(each.decision is Decision.KEY_CLOSED for each in lines(phone)) == MAX_CLOSED_KEYS_TOLD


def test_an_earlier_word_about_the_verification_takes_no_later_ones_place_in_a_full_history(phone: Device) -> None:
    """As in an export, where the lines stand in the order in which they were heard."""
    known = lines(phone)
    verified, withdrawn = (each for each in known if each.decision in trust_records.ABOUT_VERIFICATION)
    with phone.store.write() as tx:
        tx.delete_group(Table.TRUST_DECISIONS, BOB.encode())
        for each in (withdrawn, *[replace(known[0], decision=Decision.CHANGE_ACCEPTED)] * FLOOD, verified):
            trust_records.record(tx, each)
    assert withdrawn in lines(phone)


def test_a_later_word_about_the_verification_counts_in_a_full_history(phone: Device) -> None:
    key = bob_at(phone).account_key
    hear(phone, all_kinds(key))
    later = DecisionEntry(BOB, Decision.VERIFIED, key, phone.world.now + 1)
    hear(phone, [later], verified=True)
    assert bob_at(phone).verified
    assert lines(phone)[-1] == TrustDecision(BOB, Decision.VERIFIED, key, later.at)


def test_the_word_about_the_verification_that_counts_is_told_whatever_lines_came_after_it(phone: Device) -> None:
    """In the order of their lines the old ones are newer, because a device told them late."""
    key = bob_at(phone).account_key
    hear(phone, [DecisionEntry(BOB, Decision.VERIFIED, key, at) for at in range(100)])
    with phone.store.read() as tx:
        told = decode_linked(contact_sharing.one_contact(tx, BOB))
    assert told is not None
    withdrawn = next(each for each in lines(phone) if each.decision is Decision.VERIFICATION_WITHDRAWN)
    assert DecisionEntry(BOB, withdrawn.decision, key, withdrawn.at) in told.decisions


def test_a_server_that_invents_a_key_for_each_answer_fills_no_store(phone: Device) -> None:
    known = bob_at(phone).device_list.content
    with phone.store.write() as tx:
        for at in range(FLOOD):
            account = Account.generate(BOB, phone.world.random.randbytes)
            following = replace(account.first_device_list(START).content, seq=known.seq + 1, previous_hash=known.hash())
            trust.note_changed_key(tx, BOB, account.sign_device_list(following).signed, START + at)
    decisions = [each.decision for each in lines(phone)]
    assert len(decisions) == MAX_TRUST_DECISIONS
    assert decisions[:3] == [Decision.PINNED, Decision.VERIFIED, Decision.VERIFICATION_WITHDRAWN]


def test_an_accepted_key_stays_known_as_accepted_in_a_full_history(phone: Device) -> None:
    """Else another device's word could put another key in its place."""
    key = bob_at(phone).account_key
    with phone.store.write() as tx:
        trust_records.record(tx, TrustDecision(BOB, Decision.CHANGE_ACCEPTED, key, START))
        for at in range(FLOOD):
            for kind in (Decision.CHANGE_SEEN, Decision.CHANGE_ACCEPTED, Decision.CHANGE_DECLINED, Decision.PINNED):
                trust_records.record(tx, TrustDecision(BOB, kind, a_key(at), START + at))
    assert TrustDecision(BOB, Decision.CHANGE_ACCEPTED, key, START) in lines(phone)
    assert len(lines(phone)) == MAX_TRUST_DECISIONS


def last_list(device: Device, seq: int) -> SignedDeviceList:
    """A list without devices, under a new key of carol's."""
    account = Account.generate(CAROL, device.world.random.randbytes)
    closing = replace(account.first_device_list(START).content, seq=seq, devices=(), previous_hash=SOME_HASH)
    return account.sign_device_list(closing).signed


def hear_of_carol(device: Device, signed: SignedDeviceList, decisions: tuple[DecisionEntry, ...] = ()) -> None:
    entry = ContactEntry(CAROL, signed.unverified.account_key, False, False, signed)
    with device.store.write() as tx:
        contact_sharing.believe(tx, ALICE, LinkedContacts(0, (entry,), decisions), device.world.now)


def test_keys_that_were_pinned_by_a_devices_word_and_have_closed_are_bounded(phone: Device) -> None:
    """Each with a lower seq than the one before, which makes it the older one of the two: it gets pinned."""
    for at in range(MAX_CLOSED_KEYS_TOLD + 10):
        hear_of_carol(phone, last_list(phone, FLOOD - at))
    decisions = phone.messenger.contact_book.decisions(CAROL)
    assert sum(each.decision is Decision.KEY_CLOSED for each in decisions) == MAX_CLOSED_KEYS_TOLD


def test_a_pinned_key_that_has_closed_does_not_come_back_however_many_closed_keys_a_device_told(phone: Device) -> None:
    account = Account.generate(CAROL, phone.world.random.randbytes)
    first = account.first_device_list(START)
    last = replace(first.content, seq=first.content.seq + 1, devices=(), previous_hash=first.content.hash())
    told = tuple(DecisionEntry(CAROL, Decision.KEY_CLOSED, a_key(at), START) for at in range(FLOOD))
    hear_of_carol(phone, first.signed, told)
    hear_of_carol(phone, account.sign_device_list(last).signed)
    with pytest.raises(AccountKeyChangedError) as waits:
        phone.messenger.learn_device_lists(CAROL, [last_list(phone, 8)])
    phone.messenger.contact_book.accept_change(CAROL, waits.value.new_safety_number)
    with pytest.raises(InvalidSignatureError):
        phone.messenger.learn_device_lists(CAROL, [account.sign_device_list(last).signed])


def test_contacts_that_a_device_tells_of_are_bounded(phone: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_sharing, "MAX_CONTACTS_TOLD", 3)
    for name in ("carol", "dave", "erin"):
        own = phone.world.device(name, listed=False, one_time_prekeys=False).messenger.own_device_list()
        entry = contact_sharing.entry_of(Contact(UserId(name), own.content.account_key, own))
        with phone.store.write() as tx:
            decision = DecisionEntry(entry.user_id, Decision.PINNED, entry.account_key, START)
            contact_sharing.believe(tx, ALICE, LinkedContacts(0, (entry,), (decision,)), START)
    assert phone.messenger.contact_book.users() == (BOB, UserId("carol"), UserId("dave"))
    assert phone.messenger.contact_book.decisions(UserId("erin")) == []


def test_read_marks_for_messages_of_arbitrary_authors_are_bounded_together(
    phone: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("e2ee.stores.history_records._MAX_EARLY", 50)
    phone.messenger.history.set_retention(FOREVER)
    with phone.store.write() as tx:
        for at in range(200):
            history.mark_read(tx, UserId(f"nobody{at}"), [MessageId(at.to_bytes(16, "big"))], START + at)
        assert tx.count(Table.EARLY_WORDS) == 50


# --- what else is left behind, or comes back ----------------------------------------------------------------


def test_a_device_that_leaves_before_there_was_a_session_leaves_no_plan_to_meet_it(phone: Device) -> None:
    alone = phone.messenger.own_device_list().content.devices
    laptop = phone.world.further_device(phone)
    phone.messenger.tend()
    with phone.store.read() as tx:
        assert session_records.meeting(tx, laptop.address) is not None
    phone.change_list(*alone)
    with phone.store.read() as tx:
        assert session_records.meeting(tx, laptop.address) is None


def test_an_account_reset_leaves_no_plan_to_meet_devices_of_before(phone: Device) -> None:
    laptop = phone.world.further_device(phone)
    phone.messenger.tend()
    phone.messenger.account_reset.draft()
    phone.messenger.account_reset.accepted()
    with phone.store.read() as tx:
        assert session_records.meeting(tx, laptop.address) is None


def test_earlier_links_of_our_own_chain_do_not_make_newer_ones_unheard_of(phone: Device) -> None:
    laptop = phone.world.further_device(phone)
    with laptop.store.write() as tx:
        heard = records.load_contact(tx, ALICE)
        assert heard is not None
        records.save_contact(tx, replace(heard, heard_seq=9))
    laptop.messenger.own_devices.learn_earlier(phone.messenger.own_devices.lists_after(0)[:1])
    contact = laptop.messenger.contact(ALICE)
    assert contact is not None
    assert contact.heard_seq == 9


def test_a_key_that_was_closed_while_it_waited_is_not_accepted(phone: Device) -> None:
    account = Account.generate(BOB, phone.world.random.randbytes)
    known = bob_at(phone).device_list.content
    first = replace(account.first_device_list(START).content, seq=known.seq + 1, previous_hash=known.hash())
    signed: SignedDeviceList = account.sign_device_list(first).signed
    with pytest.raises(AccountKeyChangedError) as waits:
        phone.messenger.learn_device_lists(BOB, [signed])
    hear(phone, [DecisionEntry(BOB, Decision.KEY_CLOSED, first.account_key, MAX_TIMESTAMP)])
    with pytest.raises(InvalidSignatureError):
        phone.messenger.contact_book.accept_change(BOB, waits.value.new_safety_number)
