"""What people decide about contacts: comparing safety numbers, changed account keys, policies."""

from dataclasses import replace

import pytest

from e2ee.errors import (
    AccountKeyChangedError,
    ContactNotVerifiedError,
    DeviceListForkError,
    DeviceListStaleError,
    MalformedMessageError,
    SafetyNumberMismatchError,
)
from e2ee.limits import MAX_TIMESTAMP
from e2ee.messenger import Outcome
from e2ee.ports import Table
from e2ee.safety_number import QR_PREFIX
from e2ee.stores import records
from e2ee.stores.records import Contact
from e2ee.stores.trust_records import Decision, TrustDecision, TrustPolicy, record
from e2ee.trust import mark_forked
from tests.world import Device, World, talk, unchanged


def pair() -> tuple[Device, Device]:
    world = World("contact book")
    return world.device("alice", one_time_prekeys=False), world.device("bob", one_time_prekeys=False)


def reinstalled(device: Device) -> Device:
    """The same user after losing everything: a new account key, whose list follows the old one's at the server."""
    again = device.world.device(device.user_id, one_time_prekeys=False, listed=False)
    old, new = device.messenger.own_device_list().content, again.messenger.own_device_list().content
    follows = again.messenger.account.sign_device_list(replace(new, seq=old.seq + 1, previous_hash=old.hash()))
    with again.store.write() as tx:
        records.save_own_device_list(tx, follows)
    return again


def hear_of_change(device: Device, again: Device) -> AccountKeyChangedError:
    with pytest.raises(AccountKeyChangedError) as caught:
        device.messenger.learn_device_lists(again.user_id, [again.messenger.own_device_list().signed])
    return caught.value


def decisions(device: Device, peer: Device) -> list[Decision]:
    return [each.decision for each in device.messenger.contact_book.decisions(peer.user_id)]


def known(device: Device, peer: Device) -> Contact:
    contact = device.messenger.contact(peer.user_id)
    assert contact is not None
    return contact


# --- comparing -----------------------------------------------------------------------------------------------


def test_both_ends_see_one_number_and_each_ones_code_is_read_by_the_other() -> None:
    alice, bob = pair()
    talk(alice, bob)
    at_alice, at_bob = alice.messenger.contact_book, bob.messenger.contact_book
    assert at_alice.safety_number(bob.user_id) == at_bob.safety_number(alice.user_id)
    at_alice.compare(bob.user_id, at_bob.qr_text(alice.user_id))
    at_bob.compare(alice.user_id, at_alice.safety_number(bob.user_id))
    for device, peer in ((alice, bob), (bob, alice)):
        assert known(device, peer).verified
        assert decisions(device, peer) == [Decision.PINNED, Decision.VERIFIED]


def test_the_number_stays_when_devices_come_and_go_and_changes_with_the_account_key() -> None:
    world = World()
    alice, bob = (world.device(user, one_time_prekeys=False) for user in ("alice", "bob"))
    talk(alice, bob)
    number = alice.messenger.contact_book.safety_number(bob.user_id)
    picture = bob.messenger.contact_book.qr_text(alice.user_id)
    first = bob.messenger.own_device_list().content.devices
    second = world.further_device(bob)
    alice.meet(bob)
    assert alice.messenger.contact_book.safety_number(bob.user_id) == number
    second.meet(alice)
    assert second.messenger.contact_book.safety_number(alice.user_id) == number
    bob.change_list(*first)
    alice.meet(bob)
    assert len(contact_of(alice, bob).device_list.content.devices) == 1
    assert alice.messenger.contact_book.safety_number(bob.user_id) == number
    alice.messenger.contact_book.compare(bob.user_id, picture)

    reset = bob.messenger.account_reset.draft()
    bob.messenger.account_reset.accepted()
    with pytest.raises(AccountKeyChangedError):
        alice.messenger.learn_device_lists(bob.user_id, [reset.closing.signed, reset.first.signed])
    change = alice.messenger.contact_book.change(bob.user_id)
    assert change is not None
    assert change.old_safety_number == number != change.new_safety_number
    assert bob.messenger.contact_book.safety_number(alice.user_id) == change.new_safety_number


def contact_of(device: Device, peer: Device) -> Contact:
    contact = device.messenger.contact(peer.user_id)
    assert contact is not None
    return contact


def test_a_number_is_compared_however_it_is_grouped() -> None:
    alice, bob = pair()
    talk(alice, bob)
    number = bob.messenger.contact_book.safety_number(alice.user_id)
    groups = "\n".join(" ".join(number[at : at + 5] for at in range(row, row + 20, 5)) for row in range(0, 60, 20))
    alice.messenger.contact_book.compare(bob.user_id, groups)


def test_another_number_or_code_verifies_nothing() -> None:
    alice, bob = pair()
    carol = alice.world.device("carol", one_time_prekeys=False)
    for peer in (bob, carol):
        talk(alice, peer)
    book = alice.messenger.contact_book
    number, text = book.safety_number(bob.user_id), bob.messenger.contact_book.qr_text(alice.user_id)
    wrong_digit = str((int(number[-1]) + 1) % 10)
    for theirs in (
        number[:-1] + wrong_digit,
        book.safety_number(carol.user_id),
        book.qr_text(bob.user_id),  # our own, shown in a mirror
        carol.messenger.contact_book.qr_text(alice.user_id),
        text[:-1] + ("A" if text[-1] != "A" else "Q"),
        text[: len(QR_PREFIX)] + text[len(QR_PREFIX) :].lower(),
    ):
        with unchanged(alice), pytest.raises(SafetyNumberMismatchError):
            book.compare(bob.user_id, theirs)


@pytest.mark.parametrize("theirs", ["", "1" * 59, "1" * 61, "x" * 60, "²" * 60, QR_PREFIX, QR_PREFIX + "A" * 104])
def test_what_is_no_safety_number_is_called_so(theirs: str) -> None:
    alice, bob = pair()
    talk(alice, bob)
    with unchanged(alice), pytest.raises(MalformedMessageError):
        alice.messenger.contact_book.compare(bob.user_id, theirs)


def test_a_stranger_has_no_safety_number() -> None:
    alice, bob = pair()
    book = alice.messenger.contact_book
    for call in (book.safety_number, book.qr_text, book.withdraw, book.decline_change):
        with pytest.raises(DeviceListStaleError):
            call(bob.user_id)
    assert book.change(bob.user_id) is None


def test_a_verification_may_be_taken_back() -> None:
    alice, bob = pair()
    talk(alice, bob)
    book = alice.messenger.contact_book
    book.compare(bob.user_id, book.safety_number(bob.user_id))
    book.withdraw(bob.user_id)
    assert not known(alice, bob).verified
    assert decisions(alice, bob)[-1] is Decision.VERIFICATION_WITHDRAWN
    with unchanged(alice):
        book.withdraw(bob.user_id)


# --- a changed account key -----------------------------------------------------------------------------------


def test_a_changed_account_key_stops_sending_and_names_both_numbers() -> None:
    alice, bob = pair()
    talk(alice, bob)
    old = alice.messenger.contact_book.safety_number(bob.user_id)
    error = hear_of_change(alice, again := reinstalled(bob))
    again.meet(alice)
    assert (error.user_id, error.old_safety_number) == (bob.user_id, old)
    assert error.new_safety_number == again.messenger.contact_book.safety_number(alice.user_id)
    alice.restart()
    with unchanged(alice), pytest.raises(AccountKeyChangedError) as caught:
        alice.messenger.send(bob.user_id, "to whom?")
    assert vars(caught.value) == vars(error)
    change = alice.messenger.contact_book.change(bob.user_id)
    assert change is not None
    assert (change.old_safety_number, change.new_safety_number) == (old, error.new_safety_number)


def test_after_the_change_is_accepted_the_kept_messages_are_read_and_old_sessions_are_gone() -> None:
    alice, bob = pair()
    talk(alice, bob)
    alice.messenger.contact_book.compare(bob.user_id, alice.messenger.contact_book.safety_number(bob.user_id))
    late = bob.encrypt(alice, "sent before the loss, and late")
    again = reinstalled(bob)
    again.meet(alice)
    kept = [again.encrypt(alice, text) for text in ("one", "two")]
    for envelope in kept:
        assert alice.receive(envelope).outcome is Outcome.WAITING_FOR_TRUST
    error = hear_of_change(alice, again)
    assert alice.messenger.reconsider(bob.user_id) == []
    assert alice.messenger.contact_book.waiting_for_trust() == (bob.user_id,)

    alice.messenger.contact_book.accept_change(bob.user_id, error.new_safety_number)
    assert [each.outcome for each in alice.messenger.reconsider(bob.user_id)] == [Outcome.STORED] * 2
    assert alice.read() == ["one", "two"]
    assert alice.messenger.contact_book.waiting_for_trust() == ()
    assert alice.messenger.reconsider(bob.user_id) == []
    assert not known(alice, bob).verified
    assert known(alice, bob).changed is None
    assert alice.receive(late).outcome is Outcome.UNREADABLE
    talk(alice, again)
    seen = [Decision.PINNED, Decision.VERIFIED, Decision.CHANGE_SEEN, Decision.CHANGE_ACCEPTED]
    assert decisions(alice, bob) == seen


def test_a_change_is_accepted_by_the_number_of_the_very_key_that_waits() -> None:
    alice, bob = pair()
    talk(alice, bob)
    book = alice.messenger.contact_book
    with unchanged(alice), pytest.raises(SafetyNumberMismatchError):
        book.accept_change(bob.user_id, book.safety_number(bob.user_id))
    first = hear_of_change(alice, again := reinstalled(bob))
    second = hear_of_change(alice, reinstalled(again))
    for number in (first.old_safety_number, first.new_safety_number):
        with unchanged(alice), pytest.raises(SafetyNumberMismatchError):
            book.accept_change(bob.user_id, number)
    book.accept_change(bob.user_id, second.new_safety_number)


def test_a_declined_change_leaves_the_pinned_key_in_force_until_it_is_seen_again() -> None:
    alice, bob = pair()
    talk(alice, bob)
    error = hear_of_change(alice, again := reinstalled(bob))
    alice.messenger.contact_book.decline_change(bob.user_id)
    talk(alice, bob)
    assert decisions(alice, bob)[-2:] == [Decision.CHANGE_SEEN, Decision.CHANGE_DECLINED]
    assert vars(hear_of_change(alice, again)) == vars(error)
    with pytest.raises(AccountKeyChangedError):
        alice.messenger.send(bob.user_id, "no")


def test_another_account_key_whose_list_does_not_go_on_from_a_compared_one_is_refused_and_stops_nothing() -> None:
    """Anybody can sign it, so it says nothing about the key that was compared."""
    alice, bob = pair()
    talk(alice, bob)
    alice.messenger.contact_book.compare(bob.user_id, bob.messenger.contact_book.safety_number(alice.user_id))
    restarted = bob.world.device(bob.user_id, one_time_prekeys=False, listed=False)
    with unchanged(alice, Table.CONTACTS), pytest.raises(DeviceListForkError):
        alice.messenger.learn_device_lists(bob.user_id, [restarted.messenger.own_device_list().signed])
    assert not known(alice, bob).forked
    assert known(alice, bob).changed is None
    talk(alice, bob)


def test_the_true_account_key_can_be_accepted_after_a_false_one_whose_lists_are_numbered_high() -> None:
    """A server lies at first contact, or somebody is hasty once; that must not last."""
    world = World()
    alice, bob, false = (world.device(each, one_time_prekeys=False, listed=False) for each in ("alice", "bob", "bob"))
    first = false.messenger.own_device_list().content
    high = replace(first, seq=MAX_TIMESTAMP, previous_hash=first.hash())
    alice.messenger.learn_device_lists(bob.user_id, [false.messenger.account.sign_device_list(high).signed])
    world.directory.lists[bob.user_id] = [bob.messenger.own_device_list().signed]
    error = hear_of_change(alice, bob)
    alice.messenger.contact_book.accept_change(bob.user_id, error.new_safety_number)
    talk(alice, bob)


def test_a_closed_key_between_a_false_one_and_the_true_one_hides_none_of_them() -> None:
    """Alice believed a false key, and heard of a device of hers that the first true one was closed."""
    world = World()
    alice, bob, false = (world.device(each, one_time_prekeys=False, listed=False) for each in ("alice", "bob", "bob"))
    alice.messenger.learn_device_lists(bob.user_id, [false.messenger.own_device_list().signed])
    first = bob.messenger.own_device_list()
    reset = bob.messenger.account_reset.draft()
    with alice.store.write() as tx:
        record(tx, TrustDecision(bob.user_id, Decision.KEY_CLOSED, first.content.account_key, world.now))
    with pytest.raises(AccountKeyChangedError) as waits:
        alice.messenger.learn_device_lists(bob.user_id, [each.signed for each in (first, reset.closing, reset.first)])
    alice.messenger.contact_book.accept_change(bob.user_id, waits.value.new_safety_number)
    assert known(alice, bob).device_list == reset.first


def test_accepting_a_new_key_ends_a_fork() -> None:
    alice, bob = pair()
    talk(alice, bob)
    with alice.store.write() as tx:
        mark_forked(tx, bob.user_id)
    error = hear_of_change(alice, again := reinstalled(bob))
    alice.messenger.contact_book.accept_change(bob.user_id, error.new_safety_number)
    talk(alice, again)


# --- policies ------------------------------------------------------------------------------------------------


def test_the_policy_for_verified_contacts_alone_sends_to_no_other_and_reads_everybody() -> None:
    alice, bob = pair()
    talk(alice, bob)
    book = alice.messenger.contact_book
    assert book.policy() is TrustPolicy.FIRST_USE
    book.set_policy(TrustPolicy.VERIFIED_ONLY)
    alice.restart()
    with unchanged(alice), pytest.raises(ContactNotVerifiedError):
        alice.messenger.send(bob.user_id, "not yet")
    assert alice.receive(bob.encrypt(alice, "still read")).outcome is Outcome.STORED
    book.compare(bob.user_id, bob.messenger.contact_book.qr_text(alice.user_id))
    talk(alice, bob)


def test_the_unattended_policy_accepts_a_change_at_once_and_keeps_a_record_of_it() -> None:
    alice, bob = pair()
    talk(alice, bob)
    alice.messenger.contact_book.set_policy(TrustPolicy.UNATTENDED)
    again = reinstalled(bob)
    alice.messenger.learn_device_lists(bob.user_id, [again.messenger.own_device_list().signed])
    talk(alice, again)
    assert decisions(alice, bob) == [Decision.PINNED, Decision.CHANGE_SEEN, Decision.CHANGE_ACCEPTED]
