"""Whom we talk to: pinned account keys and the newest device list of each contact.

Owns: trust on first use, the judgement of a newly seen device list (protocol.md section 4.2), what a person's decision
about an account key changes.
Does not know about: messages, the network, how safety numbers are shown.
"""

from collections.abc import Iterable
from dataclasses import replace

from e2ee.errors import (
    AccountKeyChangedError,
    ContactNotVerifiedError,
    DeviceListForkError,
    DeviceListStaleError,
    InvalidSignatureError,
    SafetyNumberMismatchError,
    UnlistedDeviceError,
)
from e2ee.limits import MAX_TIMESTAMP
from e2ee.ports import ReadTransaction, Transaction
from e2ee.pqxdh import Party
from e2ee.safety_number import Side, safety_number
from e2ee.session import Session
from e2ee.stores import session_records, trust_records
from e2ee.stores.records import Contact, load_contact, own_device_list, save_contact
from e2ee.stores.trust_records import Decision, TrustDecision, TrustPolicy
from e2ee.wire.device_list import ListPosition, SignedDeviceList, VerifiedDeviceList
from e2ee.wire.identifiers import DeviceAddress, UserId
from e2ee.wire.public_keys import AccountKey


def learn_device_list(tx: Transaction, user_id: UserId, signed: SignedDeviceList, now: int) -> Contact:
    """Take in a list that the server gave, asked at `now`; pin its account key at first contact.

    An older list that the chain already passed changes nothing, but for one that fills a gap.

    Raises:
        InvalidSignatureError: not this user's list, a wrong signature, or an account key that was closed.
        AccountKeyChangedError: signed by another account key than the pinned one.
        DeviceListForkError: it contradicts the newest list known. The caller records it with `mark_forked`.
    """
    is_new = load_contact(tx, user_id) is None
    contact = replace(judge_device_list(tx, user_id, signed), queried_at=now)
    save_contact(tx, contact)
    if is_new:
        note_first_use(tx, contact, now)
    _note_closed(tx, contact, now)
    return contact


def note_first_use(tx: Transaction, contact: Contact, now: int) -> None:
    """Enter into the history that an account key was pinned because it was the first."""
    _record(tx, contact, Decision.PINNED, now)


def note_asked(tx: Transaction, user_id: UserId, now: int) -> Contact | None:
    """Note that the server was asked for newer lists of a user, whatever it answered; return the contact, if any."""
    contact = load_contact(tx, user_id)
    if contact is not None:
        contact = replace(contact, queried_at=now)
        save_contact(tx, contact)
    return contact


def judge_device_list(tx: ReadTransaction, user_id: UserId, signed: SignedDeviceList) -> Contact:
    """Return the contact as `learn_device_list` would save it, without saving.

    Raises:
        See `learn_device_list`.
    """
    verified = signed.verify(user_id)
    contact = load_contact(tx, user_id)
    if contact is None:
        return Contact(user_id, verified.content.account_key, verified)
    if verified.content.account_key != contact.account_key:
        _refuse_closed_key(tx, user_id, verified.content.account_key)
        raise AccountKeyChangedError(user_id)
    return with_list(contact, verified)


def with_list(contact: Contact, verified: VerifiedDeviceList) -> Contact:
    """Return the contact after a list under its pinned key: a newer one, one of those that lack, or a known one.

    Raises:
        DeviceListForkError: it contradicts the newest list known.
    """
    if verified.follows(contact.device_list):
        return contact.with_list(verified)
    return _with_link(contact, verified)


def _with_link(contact: Contact, link: VerifiedDeviceList) -> Contact:
    """Return the contact after a list that is not newer than the newest known: perhaps the next of those that lack.

    Raises:
        DeviceListForkError: it does not follow the last one seen before the gap.
    """
    newest, seq = contact.device_list.content, link.content.seq
    if contact.gap is None or seq != contact.gap.seq + 1:
        return contact
    if link.content.previous_hash != contact.gap.hash:
        raise DeviceListForkError(contact.user_id)
    # The newest list was held against the one right before it already (`follows`).
    return replace(contact, gap=None if seq + 1 == newest.seq else link.position)


def hear_of_list(contact: Contact, position: ListPosition) -> Contact:
    """Return the contact after an authenticated message of a listed device named its own list position.

    Another hash for the list that we know, or for the one before it, is a fork: sending stops, and the message itself
    is still delivered, because its session proves the device that sent it.
    """
    known, newest = contact.device_list.content, contact.device_list.position
    expected = {newest.seq: newest.hash, known.seq - 1: known.previous_hash}.get(position.seq, position.hash)
    forked = contact.forked or position.hash != expected
    return replace(contact, heard_seq=max(contact.heard_seq, position.seq), forked=forked)


def mark_forked(tx: Transaction, user_id: UserId) -> bool:
    """Stop sending to a contact whose lists contradict each other; return False if that had stopped before."""
    contact = load_contact(tx, user_id)
    if contact is None or contact.forked:
        return False
    save_contact(tx, replace(contact, forked=True))
    return True


def sendable_contact(tx: ReadTransaction, user_id: UserId, now: int) -> Contact:
    """Return a contact that may be sent to.

    Raises:
        DeviceListStaleError: no list is known, or a newer one was heard of: fetch it first. Or the one known has
            expired, or lists before it lack, and the server was not asked within the last hour; once it was, sending
            goes on whatever it had.
        DeviceListForkError: its lists contradict each other.
        AccountKeyChangedError: a change of its account key waits for a decision.
        ContactNotVerifiedError: the policy is to send to verified contacts only. One whose list has expired is none.
    """
    contact = load_contact(tx, user_id)
    if contact is None or contact.is_stale:
        raise DeviceListStaleError(user_id)
    if contact.is_to_be_asked_about(now) and not _is_ourselves(tx, user_id):
        raise DeviceListStaleError(user_id)
    if contact.forked:
        raise DeviceListForkError(user_id)
    if contact.changed is not None:
        raise changed_key_error(tx, contact)
    is_assured = contact.is_assured(now) or _is_ourselves(tx, user_id)
    if not is_assured and trust_records.policy(tx) is TrustPolicy.VERIFIED_ONLY:
        raise ContactNotVerifiedError(user_id)
    return contact


def is_stranger(tx: ReadTransaction, contact: Contact) -> bool:
    """Whether a user has written to us, and we never to the user."""
    sessions = _sessions(tx, contact.device_list.content.addresses())
    if not sessions:
        # Perhaps the device that wrote has left the list since: that makes nobody known who was a stranger.
        sessions = _sessions(tx, trust_records.removed_devices(tx, contact.user_id))
    return bool(sessions) and not any(session.is_wanted for session in sessions)


# --- a person's decisions ------------------------------------------------------------------------------------


def note_changed_key(tx: Transaction, user_id: UserId, signed: SignedDeviceList, now: int) -> Contact:
    """Keep a list under another account key until a person decides, or accept it if the policy is to.

    Raises:
        InvalidSignatureError: not this user's list, or a wrong signature.
        DeviceListForkError: its seq is not above the newest one known of a verified contact; seq never restarts for a
            user id. The pinned key has not signed it, so it is no reason to mark the contact as forked.
        AccountKeyChangedError: it is under the pinned key, so that some list before it cannot belong to the chain.
    """
    contact, verified = _known(tx, user_id), signed.verify(user_id)
    new_key = verified.content.account_key
    if new_key == contact.account_key:
        raise AccountKeyChangedError(user_id)
    _refuse_closed_key(tx, user_id, new_key)
    # Of a key that nobody compared, the seq may be a liar's, so high that the true key would never come after it.
    if contact.verified and verified.content.seq <= contact.device_list.content.seq:
        raise DeviceListForkError(user_id)
    if contact.changed is None or contact.changed.content.account_key != new_key:
        _record(tx, replace(contact, account_key=new_key), Decision.CHANGE_SEEN, now)
    contact = replace(contact, changed=verified)
    save_contact(tx, contact)
    if trust_records.policy(tx) is TrustPolicy.UNATTENDED:
        return accept_changed_key(tx, user_id, new_key, now)
    return contact


def accept_changed_key(tx: Transaction, user_id: UserId, account_key: AccountKey, now: int) -> Contact:
    """Pin the account key that waits. All sessions under the old one end, and so does a fork.

    Raises:
        SafetyNumberMismatchError: another key waits than the one that was looked at, or none.
        InvalidSignatureError: that key was closed, as has become known since.
    """
    contact = _known(tx, user_id)
    if contact.changed is None or contact.changed.content.account_key != account_key:
        raise SafetyNumberMismatchError(user_id)
    _refuse_closed_key(tx, user_id, account_key)
    _note_closed(tx, contact, now)  # of a list that a device of ours told of, it may not have been noted
    end_with_key(tx, contact.changed)
    contact = Contact(user_id, account_key, contact.changed, queried_at=now)
    save_contact(tx, contact)
    _record(tx, contact, Decision.CHANGE_ACCEPTED, now)
    return contact


def decline_changed_key(tx: Transaction, user_id: UserId, now: int) -> Contact:
    """Stay with the pinned account key. If the server goes on giving out the other one, the change is seen again."""
    contact = _known(tx, user_id)
    if contact.changed is not None:
        declined = replace(contact, account_key=contact.changed.content.account_key)
        _record(tx, declined, Decision.CHANGE_DECLINED, now)
        contact = replace(contact, changed=None)
        save_contact(tx, contact)
    return contact


def end_with_key(tx: Transaction, following: VerifiedDeviceList) -> None:
    """End what belongs to a contact's account key, whose place the one of the `following` list takes.

    A device id is its maker's choice: sessions with devices of the old key must not pass for some with those that
    follow, nor these for removed because they were not in the old key's last list.
    """
    session_records.delete_sessions_of_user(tx, following.content.user_id)
    for device in following.content.addresses():
        trust_records.forget_removed(tx, device)


def set_verified(tx: Transaction, user_id: UserId, verified: bool, now: int) -> Contact:
    """Record that the safety number was compared, or that this counts no longer."""
    contact = _known(tx, user_id)
    if contact.verified != verified:
        contact = replace(contact, verified=verified)
        save_contact(tx, contact)
        # Later than every decision known, also of a device of ours whose clock is ahead: the latest one counts.
        latest = max((each.at for each in trust_records.decisions(tx, user_id)), default=0)
        at = min(max(now, latest + 1), MAX_TIMESTAMP)
        _record(tx, contact, Decision.VERIFIED if verified else Decision.VERIFICATION_WITHDRAWN, at)
    return contact


def safety_number_with(tx: ReadTransaction, user_id: UserId, account_key: AccountKey) -> str:
    """Return the 60 digits of our account and a user under this account key."""
    return safety_number(our_side(tx), (user_id, account_key))


def our_side(tx: ReadTransaction) -> Side:
    """Return our user id and account key."""
    own = own_device_list(tx).content
    return own.user_id, own.account_key


def changed_key_error(tx: ReadTransaction, contact: Contact) -> AccountKeyChangedError:
    """Make the error that says which two safety numbers a person has to tell apart."""
    keys = [contact.account_key] + ([contact.changed.content.account_key] if contact.changed else [])
    numbers = (safety_number_with(tx, contact.user_id, key) for key in keys)
    return AccountKeyChangedError(contact.user_id, *numbers)


def _refuse_closed_key(tx: ReadTransaction, user_id: UserId, account_key: AccountKey) -> None:
    """Refuse an account key that has signed its last list: whoever stole a device may have it, too.

    Raises:
        InvalidSignatureError: it is such a key.
    """
    if trust_records.was_closed(tx, user_id, account_key):
        raise InvalidSignatureError("device list: under an account key that was closed")


def _note_closed(tx: Transaction, contact: Contact, now: int) -> None:
    """Enter into the history that the pinned key has signed its last list, if it has, unless that is known."""
    if contact.device_list.content.closes and not trust_records.was_closed(tx, contact.user_id, contact.account_key):
        _record(tx, contact, Decision.KEY_CLOSED, now)


def _is_ourselves(tx: ReadTransaction, user_id: UserId) -> bool:
    """Whether this is our own user, whose list it is on us to keep from expiring."""
    return own_device_list(tx).content.user_id == user_id


def _known(tx: ReadTransaction, user_id: UserId) -> Contact:
    contact = load_contact(tx, user_id)
    if contact is None:
        raise DeviceListStaleError(user_id)
    return contact


def _sessions(tx: ReadTransaction, devices: Iterable[DeviceAddress]) -> list[Session]:
    return [session for device in devices for session in session_records.sessions_with(tx, device)]


def _record(tx: Transaction, contact: Contact, decision: Decision, now: int) -> None:
    trust_records.record(tx, TrustDecision(contact.user_id, decision, contact.account_key, now))


# --- devices -------------------------------------------------------------------------------------------------


def check_listed(device_list: VerifiedDeviceList, party: Party) -> None:
    """Check that a handshake's party is a device of this list, with exactly these keys.

    Raises:
        UnlistedDeviceError: it is not.
    """
    entry = device_list.listed(party.address)
    same_keys = entry.device_signing_key == party.device_signing_key and entry.identity_key == party.identity_key
    if not same_keys or device_list.content.account_key != party.account_key:
        raise UnlistedDeviceError(str(party.address))


def recipients(contact: Contact, own: DeviceAddress) -> tuple[DeviceAddress, ...]:
    """Return the devices of a contact, or of our own user, but for this one."""
    return tuple(address for address in contact.device_list.content.addresses() if address != own)
