"""A new account key: the draft, what ends with it, and what contacts make of the two lists."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import pytest

from e2ee.errors import AccountKeyChangedError, DeviceListForkError, InvalidSignatureError
from e2ee.messenger import Messenger, Outcome
from e2ee.ports import ReadTransaction, Table, Transaction
from e2ee.stores import records, trust_records
from e2ee.wire.identifiers import DeviceId
from tests.world import Device, World, talk, unchanged


def pair() -> tuple[Device, Device]:
    world = World("reset")
    alice, bob = (world.device(user, one_time_prekeys=False) for user in ("alice", "bob"))
    talk(alice, bob)
    return alice, bob


def reset(device: Device) -> None:
    drafted = device.messenger.account_reset.draft()
    device.world.directory.lists[device.user_id] += [drafted.closing.signed, drafted.first.signed]
    assert device.messenger.account_reset.accepted() == []


def accept(device: Device, peer: Device) -> None:
    change = device.messenger.contact_book.change(peer.user_id)
    assert change is not None
    device.messenger.contact_book.accept_change(peer.user_id, change.new_safety_number)


def test_the_lists_close_the_old_key_and_begin_the_new_one() -> None:
    alice, _ = pair()
    before = alice.messenger.own_device_list()
    drafted = alice.messenger.account_reset.draft()
    closing, first = drafted.closing.content, drafted.first.content
    assert (closing.seq, closing.previous_hash, closing.devices) == (2, before.content.hash(), ())
    assert closing.account_key == before.content.account_key
    assert (first.seq, first.previous_hash) == (3, closing.hash())
    assert first.account_key != before.content.account_key
    assert first.devices == before.content.devices


def test_a_draft_survives_a_crash_with_its_key_and_changes_nothing_before_it_is_accepted() -> None:
    alice, bob = pair()
    with unchanged(alice, Table.ACCOUNT):
        drafted = alice.messenger.account_reset.draft()
    alice.restart()
    assert alice.messenger.account_reset.draft() == drafted
    assert alice.messenger.own_device_list().content.seq == 1
    assert bob.receive(alice.encrypt(bob, "still the old key")).outcome is Outcome.STORED


def test_a_draft_that_lost_a_race_keeps_its_key_and_follows_the_winner() -> None:
    alice, _ = pair()
    drafted = alice.messenger.account_reset.draft()
    further = replace(alice.messenger.account.listed, device_id=DeviceId(b"\x7f" * 16))
    winner = alice.messenger.own_devices.draft_with(further)
    alice.messenger.own_devices.learn([winner.signed])
    again = alice.messenger.account_reset.draft()
    assert again.account.account_key_pair == drafted.account.account_key_pair
    assert again.closing.content.previous_hash == winner.content.hash()


def test_acceptance_ends_all_sessions_and_stays_after_a_restart() -> None:
    alice, bob = pair()
    old_key = alice.messenger.account.party.account_key
    reset(alice)
    assert alice.sessions(bob) == []
    new_key = alice.messenger.account.party.account_key
    alice.restart()
    assert alice.messenger.account.party.account_key == new_key != old_key
    assert alice.messenger.account_reset.pending() is None
    assert alice.messenger.own_devices.is_listed()
    with pytest.raises(ValueError, match="no draft"):
        alice.messenger.account_reset.accepted()


def test_what_a_stolen_device_said_about_our_lists_does_not_stop_us_afterwards() -> None:
    alice, _ = pair()
    with alice.store.write() as tx:
        ourselves = records.load_contact(tx, alice.user_id)
        assert ourselves is not None
        records.save_contact(tx, replace(ourselves, heard_seq=99, forked=True))
    reset(alice)
    with alice.store.read() as tx:
        ourselves = records.load_contact(tx, alice.user_id)
    assert ourselves is not None
    assert (ourselves.forked, ourselves.is_stale) == (False, False)
    assert ourselves.account_key == alice.messenger.account.party.account_key


def test_a_contact_stops_and_asks_a_human_and_everything_of_the_old_key_is_refused_afterwards() -> None:
    alice, bob = pair()
    old = alice.messenger.account
    late = alice.encrypt(bob, "sent before, comes after")
    reset(alice)
    lists = bob.world.directory.lists[alice.user_id]
    with pytest.raises(AccountKeyChangedError) as changed:
        bob.messenger.learn_device_lists(alice.user_id, lists)
    assert changed.value.old_safety_number != changed.value.new_safety_number
    with pytest.raises(AccountKeyChangedError):
        bob.messenger.missing_sessions(alice.user_id)
    accept(bob, alice)
    assert bob.receive(late).outcome is Outcome.UNREADABLE
    newest = lists[-1].unverified
    for devices in (newest.devices, ()):
        content = replace(
            newest, account_key=old.party.account_key, seq=9, previous_hash=newest.hash(), devices=devices
        )
        with unchanged(bob), pytest.raises(InvalidSignatureError, match="closed"):
            bob.messenger.learn_device_lists(alice.user_id, [old.sign_device_list(content).signed])


def test_a_last_list_and_the_key_that_follows_it_are_taken_in_with_one_commit() -> None:
    """A crash between two would leave a contact without devices, and nobody would be asked about the new key."""
    alice, bob = pair()
    reset(alice)
    commits = 0

    class Counting:
        @contextmanager
        def write(self) -> Iterator[Transaction]:
            nonlocal commits
            with bob.store.write() as tx:
                yield tx
            commits += 1

        def read(self) -> AbstractContextManager[ReadTransaction]:
            return bob.store.read()

        def close(self) -> None:
            bob.store.close()

    messenger = Messenger.open(Counting(), clock=bob.clock)
    with pytest.raises(AccountKeyChangedError):
        messenger.learn_device_lists(alice.user_id, bob.world.directory.lists[alice.user_id])
    assert commits == 1
    contact = bob.messenger.contact(alice.user_id)
    assert contact is not None
    assert contact.device_list.content.closes
    assert contact.changed is not None


def test_a_first_message_under_a_closed_key_is_refused_and_not_kept_for_a_decision() -> None:
    alice, bob = pair()
    thief = alice.snapshot()
    reset(alice)
    with pytest.raises(AccountKeyChangedError):
        bob.messenger.learn_device_lists(alice.user_id, bob.world.directory.lists[alice.user_id])
    accept(bob, alice)
    alice.restore(thief)
    alice.restart()
    alice.forget_sessions(bob)
    stolen = alice.encrypt(bob, "as the thief")
    received = bob.receive(stolen)
    assert received.outcome is Outcome.UNREADABLE
    assert bob.read() == []
    with bob.store.read() as tx:
        assert trust_records.waiting_users(tx) == ()


def test_a_closed_contact_whose_new_key_was_declined_is_not_encrypted_to() -> None:
    alice, bob = pair()
    reset(alice)
    lists = bob.world.directory.lists[alice.user_id]
    with pytest.raises(AccountKeyChangedError):
        bob.messenger.learn_device_lists(alice.user_id, lists)
    bob.messenger.contact_book.decline_change(alice.user_id)
    assert bob.messenger.missing_sessions(alice.user_id) == ()
    contact = bob.messenger.contact(alice.user_id)
    assert contact is not None
    assert contact.device_list.content.closes


def test_nothing_follows_the_last_list_under_the_same_key() -> None:
    alice, bob = pair()
    closing = alice.messenger.account_reset.draft().closing
    bob.messenger.learn_device_lists(alice.user_id, [closing.signed])
    after = replace(
        closing.content, seq=3, previous_hash=closing.content.hash(), devices=(alice.messenger.account.listed,)
    )
    with pytest.raises(DeviceListForkError):
        bob.messenger.learn_device_lists(alice.user_id, [alice.messenger.account.sign_device_list(after).signed])


def test_the_draft_shows_no_secret() -> None:
    alice, _ = pair()
    drafted = alice.messenger.account_reset.draft()
    secret = drafted.account.account_key_pair.seed.expose()
    assert secret.hex() not in repr(drafted)
