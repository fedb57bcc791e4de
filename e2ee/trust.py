"""Whom we talk to: pinned account keys and the newest device list of each contact.

Owns: trust on first use, the judgement of a newly seen device list (protocol.md section 4.2).
Does not know about: sessions, messages, the network.
"""

from dataclasses import replace

from e2ee.errors import AccountKeyChangedError, DeviceListForkError, DeviceListStaleError, UnlistedDeviceError
from e2ee.ports import ReadTransaction, Transaction
from e2ee.pqxdh import Party
from e2ee.stores.records import Contact, load_contact, save_contact
from e2ee.wire.device_list import ListPosition, SignedDeviceList, VerifiedDeviceList
from e2ee.wire.identifiers import DeviceAddress, UserId


def learn_device_list(tx: Transaction, user_id: UserId, signed: SignedDeviceList, now: int) -> Contact:
    """Take in a list from the server or from a first message; pin its account key at first contact.

    An older list that the chain already passed changes nothing.

    Raises:
        InvalidSignatureError: not this user's list, or a wrong signature.
        AccountKeyChangedError: signed by another account key than the pinned one.
        DeviceListForkError: it contradicts the newest list known. The caller records it with `mark_forked`.
    """
    contact = judge_device_list(tx, user_id, signed, now)
    save_contact(tx, contact)
    return contact


def judge_device_list(tx: ReadTransaction, user_id: UserId, signed: SignedDeviceList, now: int) -> Contact:
    """Return the contact as `learn_device_list` would save it, without saving.

    Raises:
        See `learn_device_list`.
    """
    verified = signed.verify(user_id)
    contact = load_contact(tx, user_id)
    if contact is None:
        return Contact(user_id, verified.content.account_key, verified, queried_at=now)
    if verified.content.account_key != contact.account_key:
        raise AccountKeyChangedError(user_id)
    if verified.follows(contact.device_list):
        contact = contact.with_list(verified)
    return replace(contact, queried_at=now)


def hear_of_list(contact: Contact, position: ListPosition) -> Contact:
    """Return the contact after an authenticated message of a listed device named its own list position.

    Another hash for the list that we know, or for the one before it, is a fork: sending stops, and the message itself
    is still delivered, because its session proves the device that sent it.
    """
    known, newest = contact.device_list.content, contact.device_list.position
    expected = {newest.seq: newest.hash, known.seq - 1: known.previous_hash}.get(position.seq, position.hash)
    forked = contact.forked or position.hash != expected
    return replace(contact, heard_seq=max(contact.heard_seq, position.seq), forked=forked)


def mark_forked(tx: Transaction, user_id: UserId) -> None:
    """Stop sending to a contact whose lists contradict each other."""
    contact = load_contact(tx, user_id)
    if contact is not None:
        save_contact(tx, replace(contact, forked=True))


def sendable_contact(tx: ReadTransaction, user_id: UserId) -> Contact:
    """Return a contact that may be sent to.

    Raises:
        DeviceListStaleError: no list is known, or a newer one was heard of: fetch it first.
        DeviceListForkError: its lists contradict each other.
    """
    contact = load_contact(tx, user_id)
    if contact is None or contact.is_stale:
        raise DeviceListStaleError(user_id)
    if contact.forked:
        raise DeviceListForkError(user_id)
    return contact


def check_listed(device_list: VerifiedDeviceList, party: Party) -> None:
    """Check that a handshake's party is a device of this list, with exactly these keys.

    Raises:
        UnlistedDeviceError: it is not.
    """
    entry = device_list.listed(party.address)
    same_keys = entry.device_signing_key == party.device_signing_key and entry.identity_key == party.identity_key
    if not same_keys or device_list.content.account_key != party.account_key:
        raise UnlistedDeviceError(str(party.address))


def recipients(contact: Contact) -> tuple[DeviceAddress, ...]:
    """Return the contact's devices."""
    return contact.device_list.content.addresses()
