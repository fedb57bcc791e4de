"""Typed views of a transaction: what goes in comes back, and junk at rest is corrupt state, never a guess."""

from dataclasses import replace

import pytest

from e2ee.errors import AccountNotFoundError, CorruptStateError
from e2ee.messenger import Messenger
from e2ee.ports import Record, Table
from e2ee.stores import records
from e2ee.stores.memory import MemoryStore
from e2ee.wire.identifiers import parse_user_id
from tests.world import World, talk


def test_an_account_is_made_once_and_opened_again() -> None:
    store = MemoryStore()
    with pytest.raises(AccountNotFoundError):
        Messenger.open(store)
    created = Messenger.create(store, parse_user_id("alice"))
    assert Messenger.open(store).account == created.account
    with pytest.raises(ValueError, match="holds an account"):
        Messenger.create(store, parse_user_id("alice"))
    assert Messenger.open(store).account == created.account


def test_a_contact_comes_back_as_it_was() -> None:
    world = World()
    alice, bob = world.device("alice", one_time_prekeys=False), world.device("bob", one_time_prekeys=False)
    talk(alice, bob)
    with alice.store.write() as tx:
        contact = records.load_contact(tx, bob.user_id)
        assert contact is not None
        marked = replace(contact, forked=True, heard_seq=9, queried_at=7)
        decided = replace(contact, verified=True, changed=contact.device_list)
        gapped = replace(contact, gap=contact.device_list.position)
        for changed in (contact, marked, decided, gapped):
            records.save_contact(tx, changed)
            assert records.load_contact(tx, bob.user_id) == changed
        assert records.contacts(tx) == (bob.user_id,)


def test_a_contact_of_a_layout_before_reads_as_unverified_and_without_a_gap() -> None:
    world = World()
    alice, bob = world.device("alice"), world.device("bob")
    alice.meet(bob)
    key = bob.user_id.encode()
    with alice.store.write() as tx:
        whole, contact = tx.get(Table.CONTACTS, key), records.load_contact(tx, bob.user_id)
        assert whole is not None
        # Version, account key, forked, two numbers; what version 2 added: a flag and an empty list; and 3: a flag.
        for before in (b"\x01" + whole[1:50] + whole[56:], b"\x02" + whole[1:55] + whole[56:]):
            tx.put(Table.CONTACTS, key, before)
            assert records.load_contact(tx, bob.user_id) == contact


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
def test_a_contact_that_does_not_decode_is_corrupt_state(cut: int) -> None:
    world = World()
    alice, bob = world.device("alice"), world.device("bob")
    alice.meet(bob)
    key = bob.user_id.encode()
    with alice.store.write() as tx:
        whole = tx.get(Table.CONTACTS, key)
        assert whole is not None
        for broken in (whole[:cut], b"\x04" + whole[1:], whole + b"\0"):
            tx.put(Table.CONTACTS, key, broken)
            with pytest.raises(CorruptStateError):
                records.load_contact(tx, bob.user_id)


def test_counters_start_at_zero_and_count() -> None:
    with MemoryStore().write() as tx:
        assert records.counter(tx, b"new") == 0
        assert [records.next_counter(tx, b"new") for _ in range(3)] == [1, 2, 3]


def test_assertion_counters_rise_through_restarts_and_clocks_that_go_back() -> None:
    world = World()
    alice = world.device("alice")
    first = alice.messenger.registration.next_assertion_counter()
    world.wait(-1000)
    alice.restart()
    second = alice.messenger.registration.next_assertion_counter()
    world.wait(10_000)
    third = alice.messenger.registration.next_assertion_counter()
    assert first < second < third == world.now


def test_registration_is_remembered() -> None:
    alice = World().device("alice")
    assert not alice.messenger.registration.is_registered()
    alice.messenger.registration.mark_registered()
    alice.restart()
    assert alice.messenger.registration.is_registered()


def test_our_own_newest_list_is_the_one_with_the_highest_seq() -> None:
    alice = World().device("alice")
    first = alice.messenger.own_device_list()
    content = replace(first.content, seq=2, previous_hash=first.content.hash())
    second = alice.messenger.account.sign_device_list(content)
    with alice.store.write() as tx:
        records.save_own_device_list(tx, second)
        records.save_own_device_list(tx, first)
    assert alice.messenger.own_device_list() == second


def test_a_record_redacts_itself() -> None:
    text = repr(Record(b"the key", b"the value", b"the group", 7))
    for part in ("the key", "the value", "the group"):
        assert part not in text
