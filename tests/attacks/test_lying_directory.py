"""A key server that lies by script: about who a user's devices are, about their keys, about the past.

What stops a ghost device in a claim, a first bundle under a false name, or another user's list, is in
test_silent_device.py and test_client_hostile_directory.py.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pytest

from e2ee.account import PreKeyKind, generate_prekey
from e2ee.errors import (
    AccountKeyChangedError,
    ContactNotVerifiedError,
    DeviceListForkError,
    DeviceListStaleError,
    E2EEError,
    InvalidSignatureError,
    PreKeyExpiredError,
)
from e2ee.limits import DEVICE_LIST_LIFETIME_MS, PREKEY_LIFETIME_MS
from e2ee.messenger import Outcome
from e2ee.notices import DeviceListExpired, DeviceListsForked
from e2ee.ports import Table
from e2ee.private_keys import AccountKeyPair, IdentityKeyPair
from e2ee.stores.trust_records import TrustPolicy
from e2ee.wire.device_list import ListedDevice, SignedDeviceList, ordered
from e2ee.wire.identifiers import DeviceId, PreKeyId, UserId
from e2ee.wire.prekey_bundle import PreKeyBundle
from tests.world import Device, LyingDirectory, World, changed, unchanged


class Stage(NamedTuple):
    """Alice, who is lied to; Bob has two devices, of which she knows; the server."""

    world: World
    server: LyingDirectory
    alice: Device
    phone: Device
    laptop: Device


@pytest.fixture
def stage() -> Stage:
    world, server = World(), LyingDirectory()
    world.directory = server
    alice, phone = (world.device(name, one_time_prekeys=False) for name in ("alice", "bob"))
    laptop = world.further_device(phone)
    alice.meet(phone)
    for device in (phone, laptop):
        alice.messenger.start_session(device.bundle())
    return Stage(world, server, alice, phone, laptop)


def hello(stage: Stage) -> list[Outcome]:
    """Let Alice say something to Bob, and return what became of it at his devices."""
    stage.alice.messenger.send(stage.phone.user_id, "hello")
    stage.alice.post()
    return [reception.outcome for reception in stage.world.deliver()]


def ghost(world: World) -> ListedDevice:
    """A device of whoever runs the server."""
    device = world.device("ghost", listed=False, one_time_prekeys=False)
    party = device.messenger.account.party
    return ListedDevice(DeviceId(world.random.randbytes(16)), party.device_signing_key, party.identity_key)


def newest_with(lists: list[SignedDeviceList], **fields: object) -> SignedDeviceList:
    """The newest list with its successor's seq and hash, other fields replaced, under the old signature."""
    last = lists[-1].unverified
    content = replace(last, seq=last.seq + 1, previous_hash=last.hash(), **fields)  # type: ignore[arg-type]  # names and types are the cases'
    return SignedDeviceList(content, lists[-1].signature)


def with_a_ghost(stage: Stage, lists: list[SignedDeviceList]) -> SignedDeviceList:
    return newest_with(lists, devices=ordered((*lists[-1].unverified.devices, ghost(stage.world))))


def with_a_swapped_identity_key(stage: Stage, lists: list[SignedDeviceList]) -> SignedDeviceList:
    first, *others = lists[-1].unverified.devices
    swapped = replace(first, identity_key=IdentityKeyPair.generate(stage.world.random.randbytes).public)
    return newest_with(lists, devices=ordered((swapped, *others)))


def with_the_identity_keys_of_two_devices_exchanged(stage: Stage, lists: list[SignedDeviceList]) -> SignedDeviceList:
    one, two = lists[-1].unverified.devices
    crossed = (replace(one, identity_key=two.identity_key), replace(two, identity_key=one.identity_key))
    return newest_with(lists, devices=ordered(crossed))


def with_a_later_expiry(stage: Stage, lists: list[SignedDeviceList]) -> SignedDeviceList:
    return newest_with(lists, expires_at=lists[-1].unverified.expires_at + 1)


def signed_by_the_server(stage: Stage, lists: list[SignedDeviceList]) -> SignedDeviceList:
    key = AccountKeyPair.generate(stage.world.random.randbytes)
    unsigned = newest_with(lists, account_key=key.public, devices=ordered((ghost(stage.world),)))
    return SignedDeviceList(unsigned.unverified, key.sign(unsigned.unverified.signed_bytes()))


@pytest.mark.parametrize(
    "forge",
    [
        with_a_ghost,
        with_a_swapped_identity_key,
        with_the_identity_keys_of_two_devices_exchanged,
        with_a_later_expiry,
    ],
)
def test_a_list_that_the_account_did_not_sign_changes_nothing(
    stage: Stage, forge: Callable[[Stage, list[SignedDeviceList]], SignedDeviceList]
) -> None:
    stage.server.change_lists = lambda _, lists: [*lists, forge(stage, lists)]
    with unchanged(stage.alice), pytest.raises(InvalidSignatureError):
        stage.alice.meet(stage.phone)
    assert hello(stage) == [Outcome.STORED, Outcome.STORED]


def test_a_list_that_the_server_signed_stops_sending_until_a_person_has_looked(stage: Stage) -> None:
    stage.server.change_lists = lambda _, lists: [*lists, signed_by_the_server(stage, lists)]
    with unchanged(stage.alice, Table.CONTACTS, Table.TRUST_DECISIONS, Table.COUNTERS):
        with pytest.raises(AccountKeyChangedError) as told:
            stage.alice.meet(stage.phone)
        with pytest.raises(AccountKeyChangedError):
            stage.alice.messenger.send(stage.phone.user_id, "for bob alone")
    assert told.value.old_safety_number != told.value.new_safety_number
    assert stage.world.network.in_flight == []
    assert stage.alice.messenger.outbox.entries() == []


def retired(stage: Stage) -> None:
    """Bob retires his laptop, and Alice learns of it."""
    entry = stage.phone.messenger.own_device_list().content.device(stage.phone.address.device_id)
    assert entry is not None
    stage.phone.change_list(entry)
    stage.alice.meet(stage.phone)


def test_an_old_list_that_is_replayed_brings_no_retired_device_back(stage: Stage) -> None:
    retired(stage)
    stage.server.change_lists = lambda _, lists: lists[:-1]
    before = stage.alice.messenger.contact(stage.phone.user_id)
    stage.alice.meet(stage.phone)
    assert stage.alice.messenger.contact(stage.phone.user_id) == before
    assert stage.alice.messenger.missing_sessions(stage.phone.user_id) == ()
    stage.alice.messenger.send(stage.phone.user_id, "for the phone alone")
    assert [entry.recipient for entry in stage.alice.messenger.outbox.entries()] == [stage.phone.address]


def forked(stage: Stage) -> SignedDeviceList:
    """As whoever holds the account key, a retired device for instance, can sign: another list of the newest seq."""
    newest = stage.phone.messenger.own_device_list().content
    content = replace(newest, created_at=newest.created_at + 1)
    return stage.laptop.messenger.account.sign_device_list(content).signed


def test_a_fork_stops_sending_before_anything_is_encrypted(stage: Stage) -> None:
    retired(stage)
    other = forked(stage)
    stage.server.change_lists = lambda _, lists: [other]
    with unchanged(stage.alice, Table.CONTACTS), pytest.raises(DeviceListForkError):
        stage.alice.meet(stage.phone)
    with unchanged(stage.alice), pytest.raises(DeviceListForkError):
        stage.alice.messenger.send(stage.phone.user_id, "for bob alone")


def test_two_views_of_one_list_come_out_when_those_who_were_shown_them_talk(stage: Stage) -> None:
    """The server shows Alice another newest list of Bob than he has himself. His next message names his own."""
    other = forked(stage)
    carol = stage.world.device("carol", one_time_prekeys=False)
    stage.server.change_lists = lambda user, lists: [other] if user == stage.phone.user_id else lists
    carol.meet(stage.phone)
    carol.messenger.start_session(stage.phone.bundle())
    stage.server.change_lists = lambda _, lists: lists
    carol.messenger.send(stage.phone.user_id, "hello")
    carol.post()
    stage.world.deliver()
    stage.phone.meet(carol)
    told = carol.receive(stage.phone.encrypt(carol, "hello"))
    assert (told.outcome, told.notices) == (Outcome.STORED, (DeviceListsForked(stage.phone.user_id),))
    assert carol.receive(stage.phone.encrypt(carol, "once more")).notices == (), "told once"
    with pytest.raises(DeviceListForkError):
        carol.messenger.send(stage.phone.user_id, "for bob alone")


def test_a_frozen_list_is_noticed_by_the_next_message_and_nothing_is_sent_by_it(stage: Stage) -> None:
    assert hello(stage) == [Outcome.STORED, Outcome.STORED]
    frozen = list(stage.server.lists[stage.phone.user_id])
    entry = stage.phone.messenger.own_device_list().content.device(stage.phone.address.device_id)
    assert entry is not None
    stage.phone.change_list(entry)  # the laptop was stolen
    stage.server.change_lists = lambda user, lists: frozen if user == stage.phone.user_id else lists
    stage.phone.meet(stage.alice)
    assert stage.alice.receive(stage.phone.encrypt(stage.alice, "my laptop is gone")).outcome is Outcome.STORED
    for _ in range(2):
        with unchanged(stage.alice), pytest.raises(DeviceListStaleError):
            stage.alice.messenger.send(stage.phone.user_id, "not for the laptop")
        stage.alice.meet(stage.phone)  # the server insists
    stage.server.change_lists = lambda _, lists: lists
    stage.alice.meet(stage.phone)
    stage.alice.messenger.send(stage.phone.user_id, "not for the laptop")
    assert {entry.recipient for entry in stage.alice.messenger.outbox.entries()} == {stage.phone.address}


def test_a_frozen_list_is_noticed_after_30_days_even_if_nobody_says_anything(stage: Stage) -> None:
    """The laptop was stolen, and the phone has nothing to say: all that Alice has is the date on the list."""
    frozen = list(stage.server.lists[stage.phone.user_id])
    entry = stage.phone.messenger.own_device_list().content.device(stage.phone.address.device_id)
    assert entry is not None
    stage.phone.change_list(entry)
    stage.server.change_lists = lambda user, lists: frozen if user == stage.phone.user_id else lists
    stage.world.wait(DEVICE_LIST_LIFETIME_MS)
    with unchanged(stage.alice), pytest.raises(DeviceListStaleError):
        stage.alice.messenger.send(stage.phone.user_id, "anybody there?")
    assert stage.alice.meet(stage.phone) == (DeviceListExpired(stage.phone.user_id),)
    stage.alice.messenger.contact_book.set_policy(TrustPolicy.VERIFIED_ONLY)
    with unchanged(stage.alice), pytest.raises(ContactNotVerifiedError):
        stage.alice.messenger.send(stage.phone.user_id, "not for the laptop")


def of_the_other_device(stage: Stage, bundle: PreKeyBundle) -> PreKeyBundle:
    return replace(bundle, signed_prekey=stage.server.prekeys[stage.laptop.address].signed_prekey)


def kem_of_the_other_device(stage: Stage, bundle: PreKeyBundle) -> PreKeyBundle:
    return replace(bundle, kem_prekey=stage.server.prekeys[stage.laptop.address].last_resort)


def signed_by_the_other_device(stage: Stage, bundle: PreKeyBundle) -> PreKeyBundle:
    """A fresh prekey for the phone, signed by the laptop: a device of the same account, and not the one."""
    signer = replace(stage.laptop.messenger.account, address=stage.phone.address)
    random = stage.world.random.randbytes
    prekey = generate_prekey(PreKeyKind.SIGNED, PreKeyId(9), stage.world.now, random)
    return replace(bundle, signed_prekey=signer.signed_prekey(prekey))


def with_a_one_time_prekey_of_the_server(stage: Stage, bundle: PreKeyBundle) -> PreKeyBundle:
    server = stage.world.device("server", listed=False)
    return replace(bundle, one_time_prekey=server.publish().one_time_prekeys[0])


@pytest.mark.parametrize("mix", [of_the_other_device, kem_of_the_other_device, signed_by_the_other_device])
def test_prekeys_of_two_devices_of_one_user_are_not_mixed(
    stage: Stage, mix: Callable[[Stage, PreKeyBundle], PreKeyBundle]
) -> None:
    stage.server.change_bundle = lambda bundle: mix(stage, bundle)
    bundle = stage.phone.bundle()
    with unchanged(stage.alice), pytest.raises(InvalidSignatureError):
        stage.alice.messenger.start_session(bundle)
    assert hello(stage) == [Outcome.STORED, Outcome.STORED]


def test_a_one_time_prekey_of_the_server_reads_nothing_and_is_asked_again(stage: Stage) -> None:
    """One-time prekeys are not signed. The other three exchanges still need keys that the server does not have."""
    stage.alice.forget_sessions(stage.phone)
    stage.server.change_bundle = lambda bundle: with_a_one_time_prekey_of_the_server(stage, bundle)
    stage.alice.messenger.start_session(stage.phone.bundle())
    assert hello(stage) == [Outcome.UNREADABLE, Outcome.STORED]


def test_expired_prekeys_start_no_session_however_they_are_served(stage: Stage) -> None:
    bundle = stage.phone.bundle()
    stage.world.wait(PREKEY_LIFETIME_MS + 1)
    stage.alice.meet(stage.phone)
    prolonged = replace(
        bundle, signed_prekey=replace(bundle.signed_prekey, expires_at=bundle.signed_prekey.expires_at + 1000)
    )
    errors: list[type[E2EEError]] = [PreKeyExpiredError, InvalidSignatureError]
    for served, error in zip((bundle, prolonged), errors, strict=True):
        with unchanged(stage.alice), pytest.raises(error):
            stage.alice.messenger.start_session(served)


def test_a_ghost_among_our_own_devices_gets_no_copy_and_no_secret(stage: Stage) -> None:
    """What the server adds to our own list would get everything that we send."""
    own = UserId("bob")
    before = stage.phone.messenger.own_device_list()
    stage.server.change_lists = lambda _, lists: [*lists, with_a_ghost(stage, lists)]
    with unchanged(stage.phone), pytest.raises(InvalidSignatureError):
        stage.phone.messenger.learn_device_lists(own, stage.server.served(own))
    assert stage.phone.messenger.own_device_list() == before
    assert stage.phone.messenger.missing_sessions(own) == (stage.laptop.address,)


def test_a_fork_of_our_own_list_is_noticed_when_the_server_shows_it(stage: Stage) -> None:
    other = forked(stage)
    with unchanged(stage.phone, Table.COUNTERS), pytest.raises(DeviceListForkError):
        stage.phone.messenger.learn_device_lists(stage.phone.user_id, [other])
    stage.phone.meet(stage.alice)
    stage.phone.messenger.start_session(stage.alice.bundle())
    queued = stage.phone.messenger.send(stage.alice.user_id, "for alice alone")
    assert ([entry.recipient for entry in queued.entries], queued.copies) == ([stage.alice.address], ())


def test_a_message_turned_over_to_another_device_of_the_same_user_is_unreadable_there(stage: Stage) -> None:
    stage.alice.messenger.send(stage.phone.user_id, "hello")
    [to_phone, _] = sorted(
        stage.alice.messenger.outbox.entries(), key=lambda each: each.recipient != stage.phone.address
    )
    with unchanged(stage.laptop, Table.UNREADABLE):
        turned = changed(to_phone.envelope, recipient=stage.laptop.address)
        assert stage.laptop.receive(turned).outcome is Outcome.UNREADABLE
