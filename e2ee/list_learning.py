"""Lists of another user, as a server gave them: what is taken in, and what becomes of those that are refused.

Owns: the order in which lists are taken in, and that what they show of a contact is recorded in the same transaction.
Does not know about: how one list is judged (trust.py), our own lists (own_devices.py).
"""

from collections.abc import Sequence
from typing import NamedTuple

from e2ee import healing
from e2ee.errors import E2EEError, ProtocolError, TrustError
from e2ee.notices import DeviceListExpired, Notice
from e2ee.ports import Transaction
from e2ee.stores import records
from e2ee.stores.records import Contact
from e2ee.trust import changed_key_error, learn_device_list, note_asked, note_changed_key
from e2ee.wire.device_list import SignedDeviceList
from e2ee.wire.identifiers import UserId


class Learnt(NamedTuple):
    """What taking lists in has led to. To be committed even if there is a refusal, which is raised after that.

    A refusal is about a list under another account key than the pinned one. It may be a DeviceListForkError, and marks
    nothing as forked even then: the pinned key has not signed that list.
    """

    notices: tuple[Notice, ...]
    refused: E2EEError | None


def learn_lists(tx: Transaction, user_id: UserId, lists: Sequence[SignedDeviceList], now: int) -> Learnt:
    """Take in lists of another user, oldest first.

    Raises:
        InvalidSignatureError, DeviceListForkError: see `trust.learn_device_list`; nothing may be committed. Such a fork
            was signed by the pinned key, and the caller records it.
    """
    asked = records.load_contact(tx, user_id)
    before = note_asked(tx, user_id, now)
    for signed in lists:
        if before is not None and signed.unverified.account_key != before.account_key:
            # What came before stays: it may be the list with which the old key said that it is the last. What stands
            # between may be under a key that was closed since, if we were lied to: the newest list is what counts.
            signed.verify(user_id)
            refused = _note_changed_key(tx, user_id, lists[-1], now)
            return Learnt(_expired(asked, before, user_id, now) if refused is None else (), refused)
        contact = learn_device_list(tx, user_id, signed, now)
        healing.note_list_change(tx, before, contact, now)
        before = contact
    return Learnt(_expired(asked, before, user_id, now), None)


def _expired(asked: Contact | None, newest: Contact | None, user_id: UserId, now: int) -> tuple[Notice, ...]:
    """Say that a list has expired once an hour, however often what waits for the user is tried again."""
    is_news = asked is None or asked.is_to_be_asked_about(now)
    return (DeviceListExpired(user_id),) if is_news and newest is not None and newest.is_expired(now) else ()


def _note_changed_key(tx: Transaction, user_id: UserId, newest: SignedDeviceList, now: int) -> E2EEError | None:
    """Keep the newest of some lists, one of which is under another account key, until a person decides.

    In the transaction that takes in the lists before it: after a last list alone nobody would be asked. Return the
    error to raise after the commit; None if the key was accepted.
    """
    try:
        contact = note_changed_key(tx, user_id, newest, now)
    except (ProtocolError, TrustError) as error:
        return error
    return None if contact.changed is None else changed_key_error(tx, contact)
