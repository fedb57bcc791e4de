"""Fuzz target for the judgement of device lists: lists of one user in any order and of any content.

Owns: how bytes become signed lists, and what must hold of the contact.
Does not know about: the bytes of a list (decoders.py).
"""

from dataclasses import replace
from typing import Final

from e2ee.errors import AccountKeyChangedError, E2EEError
from e2ee.ports import Table
from e2ee.private_keys import AccountKeyPair
from e2ee.stores.records import Contact
from e2ee.wire.device_list import NO_PREVIOUS_LIST, DeviceListHash, SignedDeviceList
from tests.fuzz.script import Script
from tests.wire_objects import make_device, make_list, seeded_rng, sign_list
from tests.world import World, flip, without

OWNERS: Final = (
    make_device("bob"),
    make_device("bob", account=AccountKeyPair.generate(seeded_rng("another account key"))),
    make_device("carol"),
)
LISTABLE: Final = (make_device("bob"), make_device("bob", 2), make_device("bob", 3))
WITH_OTHER_KEYS: Final = replace(LISTABLE[0], identity=LISTABLE[1].identity)
MAX_LISTS: Final = 12
USER_ID: Final = OWNERS[0].address.user_id


def device_list_chain(data: bytes) -> None:
    """The pinned key stays, seq never falls, no device changes its keys, and a fork is never forgotten.

    A refused list changes nothing, except that a fork is noted, or a changed account key, for a person to decide.
    """
    script, device = Script(data), World().device("alice")
    hashes = [NO_PREVIOUS_LIST, DeviceListHash(bytes([1]) * 32)]
    while script and len(hashes) < MAX_LISTS:
        signed = next_list(script, hashes)
        hashes.append(signed.unverified.hash())
        before, stored = device.messenger.contact(USER_ID), device.snapshot()
        try:
            device.messenger.learn_device_lists(USER_ID, [signed])
        except E2EEError as error:
            noted = [Table.CONTACTS]
            if isinstance(error, AccountKeyChangedError):
                noted += [Table.TRUST_DECISIONS, Table.COUNTERS]
            assert without(device.snapshot(), *noted) == without(stored, *noted)
            assert but_for_fork(device.messenger.contact(USER_ID)) == but_for_fork(before)
        else:
            signed.verify(USER_ID)
        if before is not None:
            assert_continued(before, device.messenger.contact(USER_ID))


def next_list(script: Script, hashes: list[DeviceListHash]) -> SignedDeviceList:
    """Read a list that decodes: whose it is, seq, predecessor, entries; perhaps with a wrong signature."""
    owner, seq, previous = script.pick(OWNERS), 1 + script.number() % 6, script.pick(hashes)
    if seq == 1:
        previous = NO_PREVIOUS_LIST
    elif previous == NO_PREVIOUS_LIST:
        previous = hashes[1]
    chosen, damage = script.number(), script.number()
    devices = [each for bit, each in enumerate(LISTABLE) if chosen >> bit & 1]
    if chosen & 8 and devices:
        devices[0] = WITH_OTHER_KEYS
    signed = sign_list(make_list(devices, seq, previous, of=owner), owner.account)
    if damage & 1:
        return SignedDeviceList(signed.unverified, flip(signed.signature, damage))
    return signed


def but_for_fork(contact: Contact | None) -> object:
    return contact and (contact.account_key, contact.device_list, contact.heard_seq, contact.queried_at)


def assert_continued(before: Contact, after: Contact | None) -> None:
    """Assert what no list may ever change, accepted or not."""
    assert after is not None
    assert after.account_key == before.account_key
    assert after.forked or not before.forked
    known, newest = before.device_list.content, after.device_list.content
    assert newest == known or newest.seq > known.seq
    assert all(newest.device(each.device_id) in (None, each) for each in known.devices)
