"""A key server that lies to the client: no session, and not a byte, for a device that is not listed and signed."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2ee.account import Account, PreKeyKind, generate_prekey
from e2ee.errors import AccountKeyChangedError, DeviceListForkError, InvalidSignatureError
from e2ee.limits import MAX_TIMESTAMP
from e2ee.notices import DeviceListsForked
from e2ee.ports import Table
from e2ee.primitives.rng import system_rng
from e2ee.wire.codec import from_base64url, to_base64url
from e2ee.wire.device_list import DeviceListHash, SignedDeviceList
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import DeviceAddress, PreKeyId, parse_user_id
from e2ee.wire.prekey_bundle import PreKeyBundle
from keyserver.client import KeyServerError, MalformedAnswerError
from tests.client_world import QUICK, Actor, ClientWorld, Tamper, Tap, client_world
from transport_adapters import events
from transport_adapters.secure_client.directory import UserUnreachableError

BOB = parse_user_id("bob")
CLAIMS, LISTS, PREKEYS = "/v1/claims", "/v1/device-lists", "/v1/prekeys"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ClientWorld]:
    async with client_world(tmp_path) as made:
        yield made


def change_bundles(change: Any) -> Tamper:
    """Replace the bundles of a claim's answer by what `change` makes of them."""

    def tamper(fields: dict[str, Any]) -> None:
        bundles = [PreKeyBundle.decode(from_base64url(text)) for text in fields["bundles"]]
        fields["bundles"] = [to_base64url(bundle.encode()) for bundle in change(bundles)]

    return tamper


def forged_bundle(address: DeviceAddress, account: Account, created_at: int) -> PreKeyBundle:
    """A bundle under any address, signed by any device."""
    signer = replace(account, address=address)
    signed = generate_prekey(PreKeyKind.SIGNED, PreKeyId(1), created_at, system_rng)
    kem = generate_prekey(PreKeyKind.LAST_RESORT_KEM, PreKeyId(2), created_at, system_rng)
    return PreKeyBundle(address, signer.signed_prekey(signed), None, signer.kem_prekey(kem))


def assert_nothing_went_out(alice: Actor, tap: Tap) -> None:
    assert tap.sent == []
    assert alice.count(Table.OUTBOX) == alice.count(Table.SESSIONS) == 0


async def test_the_bundle_of_another_user_is_refused_as_it_is_and_under_a_false_name(world: ClientWorld) -> None:
    tap = Tap(world)
    alice, bob = await world.open("alice", transport=tap), await world.open("bob")
    mallory = Account.generate(parse_user_id("mallory"), system_rng)
    now = world.now()
    world.faults.tamper[CLAIMS] = change_bundles(lambda _: [forged_bundle(mallory.address, mallory, now)])
    with pytest.raises(MalformedAnswerError):
        await alice.client.send("bob", "for bob alone")
    world.faults.tamper[CLAIMS] = change_bundles(lambda _: [forged_bundle(bob.client.address, mallory, now)])
    with pytest.raises(UserUnreachableError):
        await alice.client.send("bob", "for bob alone")
    assert alice.events(events.DeviceSkipped) == [events.DeviceSkipped(bob.client.address, "invalid_signature")]
    assert_nothing_went_out(alice, tap)


async def test_expired_prekeys_are_refused(world: ClientWorld) -> None:
    tap = Tap(world)
    alice, bob = await world.open("alice", transport=tap), await world.open("bob")
    old = forged_bundle(bob.client.address, bob.client.messenger.account, created_at=0)
    world.faults.tamper[CLAIMS] = change_bundles(lambda _: [old])
    with pytest.raises(UserUnreachableError):
        await alice.client.send("bob", "for bob alone")
    assert alice.events(events.DeviceSkipped) == [events.DeviceSkipped(bob.client.address, "prekey_expired")]
    assert_nothing_went_out(alice, tap)


async def test_a_device_that_is_not_in_the_signed_list_gets_nothing(world: ClientWorld) -> None:
    tap = Tap(world)
    alice, bob = await world.open("alice", transport=tap), await world.open("bob")
    intruder = Account.generate(BOB, system_rng)
    extra = forged_bundle(intruder.address, intruder, world.now())
    world.faults.tamper[CLAIMS] = change_bundles(lambda genuine: [extra, *genuine])
    await alice.client.send("bob", "for the listed device")
    assert await bob.read() == ["for the listed device"]
    assert alice.events(events.DeviceSkipped) == [events.DeviceSkipped(intruder.address, "unlisted_device")]
    assert {Envelope.decode(each.envelope).recipient for each in tap.sent} == {bob.client.address}


async def test_the_list_of_another_user_or_under_another_key_is_refused(world: ClientWorld) -> None:
    tap = Tap(world)
    alice, bob = await world.open("alice", transport=tap), await world.open("bob")
    mallory = Account.generate(parse_user_id("mallory"), system_rng).first_device_list(world.now())
    world.faults.tamper[CLAIMS] = lambda fields: fields.update(device_list=to_base64url(mallory.signed.encode()))
    with pytest.raises(MalformedAnswerError):
        await alice.client.send("bob", "for bob alone")
    genuine = bob.client.messenger.own_device_list().signed
    unsigned = SignedDeviceList(genuine.unverified, bytes(64))
    world.faults.tamper[CLAIMS] = lambda fields: fields.update(device_list=to_base64url(unsigned.encode()))
    with pytest.raises(InvalidSignatureError):
        await alice.client.send("bob", "for bob alone")
    assert_nothing_went_out(alice, tap)
    assert alice.count(Table.CONTACTS) == 0


async def heard_of_a_newer_list(world: ClientWorld) -> tuple[Actor, Actor, SignedDeviceList]:
    """Alice and Bob; Bob has said that he has a second list, which Alice has not fetched yet."""
    alice, bob = await world.talking()
    genuine = bob.change_list()
    await bob.publish(genuine)
    await bob.client.send("alice", "I have a new list")
    assert await alice.read() == ["I have a new list"]
    return alice, bob, genuine


async def test_a_list_that_does_not_follow_the_known_one_is_a_fork_and_stops_sending(world: ClientWorld) -> None:
    alice, bob, genuine = await heard_of_a_newer_list(world)
    account = bob.client.messenger.account
    forked = account.sign_device_list(replace(genuine.unverified, previous_hash=DeviceListHash(bytes([1]) * 32)))
    world.faults.tamper[LISTS] = lambda fields: fields.update(device_lists=[to_base64url(forked.signed.encode())])
    sessions = alice.count(Table.SESSIONS)
    with pytest.raises(DeviceListForkError):
        await alice.client.send("bob", "to whom?")
    del world.faults.tamper[LISTS]
    # It ends only by a human's decision, not by a server that behaves again.
    with pytest.raises(DeviceListForkError):
        await alice.client.send("bob", "to whom?")
    assert alice.count(Table.SESSIONS) == sessions
    assert alice.count(Table.OUTBOX) == 0
    # What Bob's device says is still read: its session proves it.
    await bob.client.send("alice", "are you there?")
    assert await alice.read() == ["are you there?"]


async def test_a_list_under_a_new_account_key_waits_for_a_human(world: ClientWorld) -> None:
    alice, _, genuine = await heard_of_a_newer_list(world)
    usurper = Account.generate(BOB, system_rng)
    content = replace(genuine.unverified, account_key=usurper.account_key_pair.public)
    false = SignedDeviceList(content, usurper.account_key_pair.sign(content.signed_bytes()))
    world.faults.tamper[LISTS] = lambda fields: fields.update(device_lists=[to_base64url(false.encode())])
    with pytest.raises(AccountKeyChangedError):
        await alice.client.send("bob", "to whom?")
    contact = alice.client.messenger.contact(BOB)
    assert contact is not None
    assert contact.account_key == genuine.unverified.account_key
    assert alice.count(Table.OUTBOX) == 0


MALFORMED: list[object] = [
    {},
    [],
    5,
    {"device_list": None, "bundles": 5},
    {"device_list": 7, "bundles": []},
    {"device_list": "!!!", "bundles": []},
    {"device_list": "AAAA", "bundles": []},
    {"device_list": None, "bundles": ["AAAA"]},
    {"device_list": None, "bundles": [None]},
    {"device_list": None, "bundles": [], "padding": "x" * (2 << 20)},
    json.loads("[" * 500 + "]" * 500),
]


@pytest.mark.parametrize("answer", MALFORMED, ids=range(len(MALFORMED)))
async def test_an_answer_of_another_form_or_without_end_is_refused_by_name(world: ClientWorld, answer: object) -> None:
    tap = Tap(world)
    alice = await world.open("alice", transport=tap)
    world.faults.tamper[CLAIMS] = lambda _: answer
    with pytest.raises(KeyServerError) as caught:
        await alice.client.send("bob", "for bob alone")
    assert caught.value.code == "malformed_answer"
    assert_nothing_went_out(alice, tap)
    assert alice.events(events.Ended) == []


async def test_lies_about_the_number_of_prekeys_end_no_work_in_the_background(world: ClientWorld) -> None:
    pace = replace(QUICK, prekey_check=0.001)
    alice = await world.open("alice", pace=pace)
    lies: list[object] = [{}, [], {"one_time": -1, "one_time_kem": 0}, {"one_time": 1 << 63, "one_time_kem": 0}]
    left = list(lies)
    world.faults.tamper[PREKEYS] = lambda _: left.pop() if left else None
    await alice.event(events.Trouble, len(lies))
    assert {event.code for event in alice.events(events.Trouble)} == {"malformed_answer"}
    bob = await world.open("bob")
    await alice.client.send("bob", "still here")
    assert await bob.read() == ["still here"]
    assert alice.events(events.Ended) == []


async def test_a_false_first_list_of_the_highest_number_does_not_hide_the_true_key_for_ever(world: ClientWorld) -> None:
    """The lists of the true key are all lower, so nobody would ask for them."""
    alice, bob = await world.open("alice"), await world.open("bob")
    mallory = Account.generate(BOB, system_rng)
    content = mallory.first_device_list(world.now()).content
    high = replace(content, seq=MAX_TIMESTAMP, previous_hash=DeviceListHash(bytes(range(32))))
    alice.client.messenger.learn_device_lists(BOB, [mallory.sign_device_list(high).signed])
    await alice.client._directory.repair_lists(BOB)
    [needed] = alice.events(events.TrustNeeded)
    await alice.client.contacts.accept_change("bob", needed.new_safety_number or "")
    await alice.client.send("bob", "to the true one")
    assert await bob.read() == ["to the true one"]


async def test_a_list_under_another_key_than_the_compared_one_and_no_newer_is_no_fork(world: ClientWorld) -> None:
    alice, _ = await world.open("alice"), await world.open("bob")
    compared = Account.generate(BOB, system_rng)
    content = compared.first_device_list(world.now()).content
    later = replace(content, seq=5, previous_hash=DeviceListHash(bytes(range(32))))
    alice.client.messenger.learn_device_lists(BOB, [compared.sign_device_list(later).signed])
    book = alice.client.messenger.contact_book
    book.compare(BOB, book.safety_number(BOB))
    before = alice.client.messenger.contact(BOB)
    assert before is not None
    await alice.client._directory.repair_lists(BOB)
    assert [each.code for each in alice.events(events.Trouble)] == [DeviceListForkError.code]
    assert alice.events(DeviceListsForked) == []
    after = alice.client.messenger.contact(BOB)
    assert after is not None
    assert replace(after, queried_at=0) == replace(before, queried_at=0)
