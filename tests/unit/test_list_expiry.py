"""Device lists that expire after 30 days, and lists that a device has not seen: who renews them, what it means for
sending, and for what is shown of a contact.
"""

from dataclasses import replace

import pytest

from e2ee.errors import ContactNotVerifiedError, DeviceListForkError, DeviceListStaleError
from e2ee.limits import (
    DAY_MS,
    DEVICE_LIST_LIFETIME_MS,
    LIST_QUERY_MS,
    LIST_RENEWAL_MS,
    LIST_RENEWAL_SPREAD_MS,
)
from e2ee.messenger import Outcome
from e2ee.notices import DeviceListExpired
from e2ee.ports import Table
from e2ee.stores.trust_records import TrustPolicy
from e2ee.wire.device_list import DeviceListHash, SignedDeviceList, VerifiedDeviceList
from tests.world import Device, World, talk, unchanged


def friends() -> tuple[World, Device, Device]:
    """Alice has compared numbers with Bob; a session is established."""
    world = World("list expiry")
    alice, bob = world.device("alice", one_time_prekeys=False), world.device("bob", one_time_prekeys=False)
    talk(alice, bob)
    alice.messenger.contact_book.compare(bob.user_id, bob.messenger.contact_book.safety_number(alice.user_id))
    return world, alice, bob


def is_verified(device: Device, peer: Device) -> bool:
    return device.messenger.contact_book.is_verified(peer.user_id)


def publish(device: Device, drafted: VerifiedDeviceList | None) -> None:
    """Do what a client does with a draft that the server accepts."""
    assert drafted is not None
    device.world.directory.lists[device.user_id].append(drafted.signed)
    device.messenger.own_devices.learn([drafted.signed])


def chain(bob: Device, links: int) -> list[SignedDeviceList]:
    """Let Bob sign further lists, of which nobody else is told."""
    signed = []
    for _ in range(links):
        bob.world.wait(1)
        newest = bob.messenger.own_device_list().content
        following = replace(newest, seq=newest.seq + 1, previous_hash=newest.hash(), created_at=bob.world.now)
        signed.append(bob.messenger.account.sign_device_list(following).signed)
        bob.messenger.own_devices.learn(signed[-1:])
    return signed


# --- our own list --------------------------------------------------------------------------------------------


def test_a_device_renews_its_list_six_to_ten_days_before_it_expires() -> None:
    world, _, bob = friends()
    own = bob.messenger.own_devices
    world.wait(DEVICE_LIST_LIFETIME_MS - LIST_RENEWAL_MS - 1)
    assert own.draft_renewed() is None
    world.wait(LIST_RENEWAL_SPREAD_MS + 1)
    before = own.newest_list().content
    with unchanged(bob):
        drafted = own.draft_renewed()
    assert drafted is not None
    content = drafted.content
    assert (content.devices, content.previous_hash) == (before.devices, before.hash())
    assert (content.created_at, content.expires_at) == (world.now, world.now + DEVICE_LIST_LIFETIME_MS)
    publish(bob, drafted)
    assert own.draft_renewed() is None


def test_ten_devices_of_a_user_do_not_all_renew_at_once() -> None:
    world = World("spread")
    first = world.device("alice", one_time_prekeys=False)
    devices = [first, *(world.further_device(first) for _ in range(9))]
    world.wait(DEVICE_LIST_LIFETIME_MS - LIST_RENEWAL_MS)
    due = []
    for _ in range(LIST_RENEWAL_SPREAD_MS // DAY_MS * 4):
        world.wait(DAY_MS // 4)
        due.append(sum(device.messenger.own_devices.is_renewal_due() for device in devices))
    assert due[-1] == len(devices)
    assert max(later - earlier for earlier, later in zip([0, *due], due, strict=False)) < len(devices) // 2


def test_of_two_drafts_the_second_is_thrown_away_and_nothing_more_is_due() -> None:
    """The race that the server's compare-and-set decides."""
    world = World("race")
    phone = world.device("alice", one_time_prekeys=False)
    laptop = world.further_device(phone, skew=1)
    world.wait(DEVICE_LIST_LIFETIME_MS - LIST_RENEWAL_MS + LIST_RENEWAL_SPREAD_MS)
    winner, loser = (device.messenger.own_devices.draft_renewed() for device in (phone, laptop))
    assert winner is not None
    assert loser is not None
    assert winner.position != loser.position
    publish(phone, winner)
    laptop.messenger.own_devices.learn([winner.signed])
    assert laptop.messenger.own_devices.draft_renewed() is None
    assert phone.messenger.own_device_list() == laptop.messenger.own_device_list() == winner


def test_a_retired_device_renews_nothing() -> None:
    world = World("retired")
    phone = world.device("alice", one_time_prekeys=False)
    laptop = world.further_device(phone)
    phone.change_list(phone.messenger.account.listed)
    world.wait(DEVICE_LIST_LIFETIME_MS)
    assert phone.messenger.own_devices.is_renewal_due()
    assert not laptop.messenger.own_devices.is_renewal_due()


def test_our_own_expired_list_holds_up_no_copy_for_our_other_devices() -> None:
    world = World("own list")
    phone, bob = world.device("alice", one_time_prekeys=False), world.device("bob", one_time_prekeys=False)
    laptop = world.further_device(phone)
    phone.messenger.start_session(laptop.bundle())
    world.wait(DEVICE_LIST_LIFETIME_MS)
    phone.start_session(bob)
    phone.messenger.contact_book.set_policy(TrustPolicy.VERIFIED_ONLY)
    phone.messenger.contact_book.compare(bob.user_id, phone.messenger.contact_book.safety_number(bob.user_id))
    bob.messenger.own_devices.draft_renewed()
    publish(bob, bob.messenger.own_devices.draft_renewed())
    phone.meet(bob)
    assert [entry.recipient for entry in phone.messenger.send(bob.user_id, "hello").copies] == [laptop.address]


# --- a contact's list ----------------------------------------------------------------------------------------


def test_an_expired_list_is_asked_for_once_an_hour_and_sending_goes_on_with_a_notice() -> None:
    world, alice, bob = friends()
    world.wait(DEVICE_LIST_LIFETIME_MS)
    for _ in range(2):
        with unchanged(alice), pytest.raises(DeviceListStaleError):
            alice.messenger.send(bob.user_id, "too early")
        assert alice.meet(bob) == (DeviceListExpired(bob.user_id),)
        assert bob.receive(alice.encrypt(bob, "all the same")).outcome is Outcome.STORED
        world.wait(LIST_QUERY_MS - 1)
        alice.messenger.send(bob.user_id, "within the hour")
        world.wait(1)


def test_a_contact_with_an_expired_list_is_not_shown_as_verified_until_it_is_renewed() -> None:
    world, alice, bob = friends()
    world.wait(DEVICE_LIST_LIFETIME_MS - 1)
    assert is_verified(alice, bob)
    world.wait(1)
    assert not is_verified(alice, bob)
    publish(bob, bob.messenger.own_devices.draft_renewed())
    assert alice.meet(bob) == ()
    assert is_verified(alice, bob), "nothing is to be compared again"


def test_who_sends_to_verified_contacts_only_does_not_send_under_an_expired_list() -> None:
    world, alice, bob = friends()
    alice.messenger.contact_book.set_policy(TrustPolicy.VERIFIED_ONLY)
    alice.messenger.send(bob.user_id, "verified")
    world.wait(DEVICE_LIST_LIFETIME_MS)
    alice.meet(bob)
    with unchanged(alice), pytest.raises(ContactNotVerifiedError):
        alice.messenger.send(bob.user_id, "to whom?")


def test_a_first_message_under_an_expired_list_is_read() -> None:
    world = World("late writer")
    alice, bob = world.device("alice", one_time_prekeys=False), world.device("bob", one_time_prekeys=False)
    world.wait(DEVICE_LIST_LIFETIME_MS + DAY_MS)
    assert bob.receive(alice.encrypt(bob, "hello")).outcome is Outcome.STORED
    assert bob.read() == ["hello"]


# --- lists that were not seen --------------------------------------------------------------------------------


def test_a_contact_is_not_shown_as_verified_while_links_lack_and_is_again_once_they_were_checked() -> None:
    _, alice, bob = friends()
    links = chain(bob, 4)
    alice.messenger.learn_device_lists(bob.user_id, links[-1:])
    assert not is_verified(alice, bob)
    alice.messenger.learn_device_lists(bob.user_id, links[:2])
    assert not is_verified(alice, bob), "one lacks still"
    alice.messenger.learn_device_lists(bob.user_id, links[2:])
    assert is_verified(alice, bob)


def test_a_gap_behind_a_gap_is_closed_from_the_first_link_that_lacks() -> None:
    _, alice, bob = friends()
    links = chain(bob, 6)
    for served in (links[1:2], links[5:6], links[3:5]):
        alice.messenger.learn_device_lists(bob.user_id, served)
        assert not is_verified(alice, bob)
    alice.messenger.learn_device_lists(bob.user_id, links)
    assert is_verified(alice, bob)


def test_links_that_lack_are_asked_for_before_more_is_sent() -> None:
    _, alice, bob = friends()
    links = chain(bob, 3)
    alice.world.wait(LIST_QUERY_MS)
    alice.receive(bob.encrypt(alice, "under the newest list"))
    alice.messenger.learn_device_lists(bob.user_id, links[-1:])
    alice.messenger.send(bob.user_id, "just asked")
    alice.world.wait(LIST_QUERY_MS)
    with unchanged(alice), pytest.raises(DeviceListStaleError):
        alice.messenger.send(bob.user_id, "an hour later")
    assert alice.messenger.learn_device_lists(bob.user_id, links) == ()
    alice.messenger.send(bob.user_id, "checked")


def test_a_link_that_does_not_belong_into_the_gap_is_a_fork() -> None:
    """A removed device, which holds the account's key, signs lists that only some are shown."""
    _, alice, bob = friends()
    links = chain(bob, 4)
    alice.messenger.learn_device_lists(bob.user_id, links[-1:])
    astray = replace(links[0].unverified, previous_hash=DeviceListHash(bytes(range(32))))
    other = bob.messenger.account.sign_device_list(astray).signed
    with unchanged(alice, Table.CONTACTS), pytest.raises(DeviceListForkError):
        alice.messenger.learn_device_lists(bob.user_id, [other])
    assert not is_verified(alice, bob)
    with pytest.raises(DeviceListForkError):
        alice.messenger.send(bob.user_id, "to whom?")
