"""A server that lies to a client, by script, in every way that issue after issue has named: what the user hears of it,
and that no byte goes where the lie points.

The single lies have tests of their own (test_lying_directory.py, test_client_hostile_directory.py); here the question
is whether a person learns of it: an error where they asked for something, else an event.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from e2ee.account import Account, PreKeyKind, generate_prekey
from e2ee.errors import DeviceListForkError, DeviceListStaleError, E2EEError, InvalidSignatureError
from e2ee.limits import DEVICE_LIST_LIFETIME_MS
from e2ee.messenger import system_clock
from e2ee.notices import DeviceListExpired, DeviceListsForked
from e2ee.primitives.rng import system_rng
from e2ee.private_keys import IdentityKeyPair
from e2ee.wire.codec import from_base64url, to_base64url
from e2ee.wire.device_list import SignedDeviceList, ordered
from e2ee.wire.envelope import Envelope
from e2ee.wire.identifiers import PreKeyId, UserId
from e2ee.wire.prekey_bundle import PreKeyBundle
from tests.client_world import Actor, ClientWorld, Tap, client_world
from tests.linking_world import link
from transport_adapters import events

BOB = UserId("bob")
CLAIMS, LISTS = "/v1/claims", "/v1/device-lists"


class Stage(NamedTuple):
    world: ClientWorld
    phone: Actor
    laptop: Actor


class Lie(NamedTuple):
    """What the server makes of its answers, and what becomes of a message that Alice sends to Bob then."""

    name: str
    tamper: Callable[[Stage, str, dict[str, Any]], object]
    raises: type[E2EEError] | None = None
    told: Callable[[Stage], list[events.Event]] = lambda _: []
    reaches: Callable[[Stage], set[str]] = lambda _: set()
    """Which of Bob's devices get the message all the same."""


def lists_of(path: str, fields: dict[str, Any]) -> list[SignedDeviceList]:
    texts = [fields["device_list"]] if path == CLAIMS else fields.get("device_lists", [])
    return [SignedDeviceList.decode(from_base64url(text)) for text in texts]


def with_newest(change: Callable[[Stage, SignedDeviceList], SignedDeviceList]) -> Callable[..., object]:
    """Replace the newest list of an answer."""

    def tamper(stage: Stage, path: str, fields: dict[str, Any]) -> None:
        if served := lists_of(path, fields):
            text = to_base64url(change(stage, served[-1]).encode())
            if path == CLAIMS:
                fields["device_list"] = text
            else:
                fields["device_lists"][-1] = text

    return tamper


def with_a_ghost(_stage: Stage, signed: SignedDeviceList) -> SignedDeviceList:
    ghost = Account.generate(BOB, system_rng).listed
    content = signed.unverified
    return SignedDeviceList(replace(content, devices=ordered((*content.devices, ghost))), signed.signature)


def with_a_swapped_identity_key(_stage: Stage, signed: SignedDeviceList) -> SignedDeviceList:
    first, *others = signed.unverified.devices
    swapped = replace(first, identity_key=IdentityKeyPair.generate(system_rng).public)
    return SignedDeviceList(replace(signed.unverified, devices=ordered((swapped, *others))), signed.signature)


def with_bundles(change: Callable[[Stage, list[PreKeyBundle]], list[PreKeyBundle]]) -> Callable[..., object]:
    """Replace the bundles of a claim."""

    def tamper(stage: Stage, path: str, fields: dict[str, Any]) -> None:
        if path == CLAIMS:
            bundles = [PreKeyBundle.decode(from_base64url(text)) for text in fields["bundles"]]
            fields["bundles"] = [to_base64url(each.encode()) for each in change(stage, bundles)]

    return tamper


def mixed(stage: Stage, bundles: list[PreKeyBundle]) -> list[PreKeyBundle]:
    """The phone's signed prekey in the laptop's bundle."""
    phone, laptop = (
        next(each for each in bundles if each.address == actor.client.address) for actor in (stage.phone, stage.laptop)
    )
    return [phone, replace(laptop, signed_prekey=phone.signed_prekey)]


def cross_signed(stage: Stage, bundles: list[PreKeyBundle]) -> list[PreKeyBundle]:
    """A fresh prekey for the laptop, signed by the phone."""
    signer = replace(stage.phone.client.messenger.account, address=stage.laptop.client.address)
    prekey = signer.signed_prekey(generate_prekey(PreKeyKind.SIGNED, PreKeyId(9), system_clock(), system_rng))
    return [
        replace(each, signed_prekey=prekey) if each.address == stage.laptop.client.address else each for each in bundles
    ]


def expired(stage: Stage, bundles: list[PreKeyBundle]) -> list[PreKeyBundle]:
    """A prekey that the laptop itself signed long ago."""
    account = stage.laptop.client.messenger.account
    old = account.signed_prekey(generate_prekey(PreKeyKind.SIGNED, PreKeyId(9), 0, system_rng))
    return [
        replace(each, signed_prekey=old) if each.address == stage.laptop.client.address else each for each in bundles
    ]


def skipped(code: str) -> Callable[[Stage], list[events.Event]]:
    return lambda stage: [events.DeviceSkipped(stage.laptop.client.address, code)]


def the_phone(stage: Stage) -> set[str]:
    return {str(stage.phone.client.address)}


LIES = [
    Lie("a ghost device", with_newest(with_a_ghost), raises=InvalidSignatureError),
    Lie("swapped identity keys", with_newest(with_a_swapped_identity_key), raises=InvalidSignatureError),
    Lie("prekeys mixed between devices", with_bundles(mixed), told=skipped("invalid_signature"), reaches=the_phone),
    Lie("cross-signed prekeys", with_bundles(cross_signed), told=skipped("invalid_signature"), reaches=the_phone),
    Lie("expired prekeys", with_bundles(expired), told=skipped("prekey_expired"), reaches=the_phone),
]


async def test_of_each_lie_about_devices_and_prekeys_the_user_is_told_and_nothing_goes_where_it_points(
    tmp_path: Path,
) -> None:
    async with client_world(tmp_path) as world:
        phone = await world.open("bob")
        stage = Stage(world, phone, await link(world, phone))
        for number, lie in enumerate(LIES):
            tap = Tap(world)
            alice = await world.open(f"alice-{number}", transport=tap)

            def tamper_at(path: str, lie: Lie = lie) -> Callable[[dict[str, Any]], object]:
                return lambda fields: lie.tamper(stage, path, fields)

            world.faults.tamper = {path: tamper_at(path) for path in (CLAIMS, LISTS)}
            try:
                await alice.client.send("bob", lie.name)
            except E2EEError as error:
                assert type(error) is lie.raises, lie.name
            else:
                assert lie.raises is None, lie.name
                await alice.client.flushed()
            world.faults.tamper = {}
            assert alice.events(events.DeviceSkipped) == lie.told(stage), lie.name
            assert {str(Envelope.decode(each.envelope).recipient) for each in tap.sent} == lie.reaches(stage), lie.name


async def test_of_a_forked_a_frozen_and_a_replayed_list_the_user_is_told(tmp_path: Path) -> None:
    async with client_world(tmp_path) as world:
        bob = await world.open("bob")
        alices = [await world.open(f"alice-{number}") for number in range(3)]
        for alice in alices:
            await alice.client.send("bob", "hello")
        assert len(await bob.read(3)) == 3
        first = bob.client.messenger.own_device_list()
        second = bob.change_list()
        forked = bob.client.messenger.account.sign_device_list(replace(second.unverified, created_at=7)).signed
        frozen_out, shown_a_fork, told_late = alices

        # Forked: another second list for one of them, while Bob speaks of his own.
        world.faults.tamper[LISTS] = lambda fields: fields.update(device_lists=[to_base64url(forked.encode())])
        await bob.publish(second)
        await shown_a_fork.client._directory.repair_lists(BOB)
        await bob.client.send("alice-1", "this is my list")
        assert await shown_a_fork.read() == ["this is my list"]
        assert await shown_a_fork.event(DeviceListsForked) == DeviceListsForked(BOB)
        with pytest.raises(DeviceListForkError):
            await shown_a_fork.client.send("bob", "to whom?")

        # Frozen: the server insists on the first list, although Bob speaks of a second.
        world.faults.tamper[LISTS] = lambda fields: fields.update(device_lists=[], newest_seq=1)
        await bob.client.send("alice-0", "I have a second list")
        assert await frozen_out.read() == ["I have a second list"]
        with pytest.raises(DeviceListStaleError):
            await frozen_out.client.send("bob", "to whom?")

        # Replayed to one to whom Bob says nothing: the old list runs out.
        replayed = to_base64url(first.signed.encode())
        world.faults.tamper[CLAIMS] = lambda fields: fields.update(device_list=replayed)
        told_late.client.messenger._clock = lambda: system_clock() + DEVICE_LIST_LIFETIME_MS
        await told_late.client.send("bob", "anybody there?")
        assert told_late.events(DeviceListExpired) == [DeviceListExpired(BOB)]
        contact = told_late.client.messenger.contact(BOB)
        assert contact is not None
        assert contact.device_list == first
