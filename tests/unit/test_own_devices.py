"""Our own chain of device lists: what is taken in, what is refused, what the next list may be."""

from dataclasses import replace
from random import Random

import pytest

from e2ee.errors import (
    AccountKeyChangedError,
    DeviceListForkError,
    InvalidSignatureError,
    LinkMismatchError,
    MalformedMessageError,
    TooManyDevicesError,
    UnlistedDeviceError,
)
from e2ee.limits import MAX_DEVICES
from e2ee.linking import Offer
from e2ee.messenger import Messenger
from e2ee.ports import Table
from e2ee.private_keys import AccountKeyPair, DeviceSigningKeyPair, IdentityKeyPair
from e2ee.stores.memory import MemoryStore
from e2ee.wire.device_list import ListedDevice, SignedDeviceList, VerifiedDeviceList
from e2ee.wire.identifiers import DeviceId
from tests.world import Device, World, unchanged

RANDOM = Random(5).randbytes


def alice() -> Device:
    return World("own devices").device("alice", one_time_prekeys=False)


def further() -> ListedDevice:
    keys = DeviceSigningKeyPair.generate(RANDOM).public, IdentityKeyPair.generate(RANDOM).public
    return ListedDevice(DeviceId(RANDOM(16)), *keys)


def after(known: VerifiedDeviceList, device: Device, **changes: object) -> VerifiedDeviceList:
    content = replace(known.content, seq=known.content.seq + 1, previous_hash=known.content.hash())
    return device.messenger.account.sign_device_list(replace(content, **changes))  # type: ignore[arg-type]  # names and types are the test's


def test_a_draft_is_not_taken_in_before_it_is_learned() -> None:
    device = alice()
    own, added = device.messenger.own_devices, further()
    with unchanged(device):
        drafted = own.draft_with(added)
    assert own.learn([drafted.signed]) == drafted
    assert own.newest_list().content.device(added.device_id) == added
    assert own.learn([drafted.signed]) == drafted, "again changes nothing"
    without = own.draft_without(added.device_id)
    assert own.learn([without.signed]).content.devices == (device.messenger.account.listed,)


def test_links_of_our_own_chain_come_in_order_and_without_gaps() -> None:
    device = alice()
    own = device.messenger.own_devices
    second = own.draft_with(further())
    third = after(second, device)
    with unchanged(device), pytest.raises(MalformedMessageError, match="missing"):
        own.learn([third.signed])
    assert own.learn([second.signed, third.signed]) == third
    assert own.lists_after(1) == (second.signed, third.signed)
    assert own.lists_after(3) == ()


@pytest.mark.parametrize(
    "case", ["account key", "signature", "user", "same seq", "predecessor", "our keys", "old link"]
)
def test_lists_that_are_not_ours_or_contradict_our_chain_are_refused_and_nothing_is_taken_in(case: str) -> None:
    device = alice()
    own, first = device.messenger.own_devices, device.messenger.own_device_list()
    second = own.draft_with(further())
    ours = device.messenger.account.listed
    other = replace(device.messenger.account, account_key_pair=AccountKeyPair.generate(RANDOM))
    bad: dict[str, tuple[SignedDeviceList, type[Exception]]] = {
        "account key": (
            other.sign_device_list(replace(second.content, account_key=other.party.account_key)).signed,
            AccountKeyChangedError,
        ),
        "signature": (replace(second.signed, signature=bytes(64)), InvalidSignatureError),
        "user": (device.world.device("bob").messenger.own_device_list().signed, InvalidSignatureError),
        "same seq": (
            device.messenger.account.sign_device_list(replace(first.content, created_at=7)).signed,
            DeviceListForkError,
        ),
        "predecessor": (after(second, device, seq=2).signed, DeviceListForkError),
        "our keys": (
            after(first, device, devices=(replace(ours, identity_key=further().identity_key),)).signed,
            DeviceListForkError,
        ),
        "old link": (
            device.messenger.account.sign_device_list(replace(first.content, devices=())).signed,
            DeviceListForkError,
        ),
    }
    signed, error = bad[case]
    if case == "old link":
        own.learn([second.signed])
    # A fork is remembered: nothing more goes to our other devices.
    allowed = (Table.COUNTERS,) if error is DeviceListForkError else ()
    with unchanged(device, *allowed), pytest.raises(error):
        own.learn([second.signed, signed] if case == "old link" else [signed])


def test_another_list_far_below_our_newest_one_is_a_fork_because_we_keep_our_chain() -> None:
    device = alice()
    own, first = device.messenger.own_devices, device.messenger.own_device_list()
    own.learn([own.draft_with(further()).signed])
    own.learn([own.draft_with(further()).signed])
    other = device.messenger.account.sign_device_list(replace(first.content, created_at=7))
    with unchanged(device, Table.COUNTERS), pytest.raises(DeviceListForkError):
        own.learn([other.signed])


def test_a_list_that_lets_us_in_under_other_keys_is_refused() -> None:
    """A device that was just linked is in no list yet, so that its own keys alone can tell."""
    device = alice()
    offer = Offer.make(device.user_id, device.world.now, RANDOM)
    approval = device.messenger.own_devices.approve(offer.commit)
    new = offer.compare(approval.answer, device.world.now).confirm()
    bundle = approval.compare(offer.reveal, device.world.now).confirm(device.world.now).bundle
    joined = Messenger.join(MemoryStore(), new.open(bundle, device.world.now), clock=device.clock)
    assert not joined.own_devices.is_listed()
    false = replace(joined.account.listed, identity_key=further().identity_key)
    forged = device.messenger.own_devices.draft_with(false)
    with pytest.raises(DeviceListForkError):
        joined.own_devices.learn([forged.signed])
    joined.own_devices.learn([device.messenger.own_devices.draft_with(joined.account.listed).signed])
    assert joined.own_devices.is_listed()


def linked_late(device: Device) -> tuple[Device, tuple[SignedDeviceList, ...]]:
    """Add a device that knows the chain from its third link on; return it, and the two links before that."""
    device.world.further_device(device)
    late = device.world.further_device(device)
    assert late.messenger.own_devices.lacks_earlier() == 2
    return late, device.messenger.own_devices.lists_after(0)[:2]


def test_links_from_before_a_device_was_linked_are_taken_in_by_their_hashes() -> None:
    device = alice()
    late, earlier = linked_late(device)
    own, newest = late.messenger.own_devices, late.messenger.own_device_list()
    own.learn_earlier(earlier[1:])
    assert own.lacks_earlier() == 1
    own.learn_earlier(earlier[:1])
    assert own.lacks_earlier() == 0
    assert own.lists_after(0) == device.messenger.own_devices.lists_after(0)
    assert late.messenger.own_device_list() == newest


@pytest.mark.parametrize("case", ["another link", "a gap", "signature"])
def test_links_that_do_not_lead_up_to_ours_are_not_taken_in(case: str) -> None:
    device = alice()
    late, (first, second) = linked_late(device)
    other = replace(first.unverified, created_at=first.unverified.created_at + 1)
    bad: dict[str, tuple[list[SignedDeviceList], type[Exception]]] = {
        "another link": ([device.messenger.account.sign_device_list(other).signed, second], DeviceListForkError),
        "a gap": ([first], DeviceListForkError),
        "signature": ([replace(first, signature=bytes(64)), second], InvalidSignatureError),
    }
    lists, error = bad[case]
    with unchanged(late), pytest.raises(error):
        late.messenger.own_devices.learn_earlier(lists)


def test_a_device_id_never_returns() -> None:
    device = alice()
    own, added = device.messenger.own_devices, further()
    own.learn([own.draft_with(added).signed])
    own.learn([own.draft_without(added.device_id).signed])
    with pytest.raises(LinkMismatchError, match="taken"):
        own.draft_with(added)


def test_there_is_room_for_ten_devices() -> None:
    device = alice()
    own = device.messenger.own_devices
    for _ in range(MAX_DEVICES - 1):
        own.learn([own.draft_with(further()).signed])
    with pytest.raises(TooManyDevicesError):
        own.draft_with(further())


def test_what_is_not_listed_cannot_be_retired() -> None:
    device = alice()
    with pytest.raises(UnlistedDeviceError):
        device.messenger.own_devices.draft_without(further().device_id)


def test_a_device_that_was_retired_elsewhere_knows_it() -> None:
    device = alice()
    own = device.messenger.own_devices
    assert own.is_listed()
    own.learn([after(own.newest_list(), device, devices=(further(),)).signed])
    assert not own.is_listed()


def test_an_account_is_not_joined_in_a_store_that_holds_one() -> None:
    device = alice()
    store = MemoryStore()
    Messenger.create(store, device.user_id)
    with pytest.raises(ValueError, match="holds an account already"):
        Messenger.create(store, device.user_id)
