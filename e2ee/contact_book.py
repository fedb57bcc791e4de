"""What a person sees of contacts, and decides about them: safety numbers, verification, changed account keys.

Owns: one transaction for each decision; that a key is accepted only by who has seen its number.
Does not know about: messages, the network, screens and cameras.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from e2ee import sending, trust
from e2ee.errors import DeviceListStaleError, MalformedMessageError, SafetyNumberMismatchError
from e2ee.ports import ReadTransaction, Store, Transaction
from e2ee.safety_number import QR_PREFIX, Side, is_their_qr_text, qr_text
from e2ee.sending import Sender
from e2ee.stores import records, trust_records
from e2ee.stores.records import Contact
from e2ee.stores.trust_records import TrustDecision, TrustPolicy
from e2ee.wire.identifiers import UserId

_DIGITS = 60


@final
@dataclass(frozen=True, slots=True)
class AccountKeyChange:
    """A contact's account key that waits for a decision: the safety numbers of the pinned key and of the new one."""

    user_id: UserId
    old_safety_number: str
    new_safety_number: str


@final
class ContactBook:
    """The contacts of one device. Reached as `Messenger.contact_book`; every method is one transaction."""

    def __init__(self, store: Store, sender: Callable[[], Sender]) -> None:
        self._store, self._sender = store, sender

    def users(self) -> tuple[UserId, ...]:
        """Return the user ids of all contacts, sorted."""
        with self._store.read() as tx:
            return records.contacts(tx)

    def is_stranger(self, user_id: UserId) -> bool:
        """Say whether a user has written to us, and we never to the user."""
        with self._store.read() as tx:
            contact = records.load_contact(tx, user_id)
            return contact is not None and trust.is_stranger(tx, contact)

    def waiting_for_trust(self) -> tuple[UserId, ...]:
        """Return the users of whom messages under a changed account key are kept."""
        with self._store.read() as tx:
            return trust_records.waiting_users(tx)

    def policy(self) -> TrustPolicy:
        """Return whom this device sends to."""
        with self._store.read() as tx:
            return trust_records.policy(tx)

    def set_policy(self, policy: TrustPolicy) -> None:
        """Say whom this device sends to, from now on. Changes that wait already go on waiting."""
        with self._store.write() as tx:
            trust_records.set_policy(tx, policy)

    def safety_number(self, user_id: UserId) -> str:
        """Return the 60 digits to compare with a user, who sees the same (protocol.md section 4.3).

        Raises:
            DeviceListStaleError: nothing is known of the user.
        """
        with self._store.read() as tx:
            return trust.safety_number_with(tx, user_id, _known(tx, user_id).account_key)

    def qr_text(self, user_id: UserId) -> str:
        """Return what our QR code for a user says, 116 characters of the alphanumeric set (protocol.md section 4.3).

        Raises:
            DeviceListStaleError: nothing is known of the user.
        """
        with self._store.read() as tx:
            return qr_text(trust.our_side(tx), _their_side(_known(tx, user_id)))

    def compare(self, user_id: UserId, theirs: str) -> bool:
        """Compare what the other end shows, 60 digits or the text of its QR code, and record that it is the same.

        Our other devices are told. Returns whether one of them waits for a session: call `Messenger.tend`.

        Raises:
            SafetyNumberMismatchError: it is not. Nothing was recorded.
            MalformedMessageError: it is neither.
            DeviceListStaleError: nothing is known of the user.
        """
        with self._store.write() as tx:
            contact = _known(tx, user_id)
            if theirs.startswith(QR_PREFIX):
                same = is_their_qr_text(theirs, trust.our_side(tx), _their_side(contact))
            else:
                same = _same_digits(theirs, trust.safety_number_with(tx, user_id, contact.account_key))
            if not same:
                raise SafetyNumberMismatchError(user_id)
            return self._set_verified(tx, contact, True)

    def withdraw(self, user_id: UserId) -> bool:
        """Take a verification back.

        Our other devices are told. Returns whether one of them waits for a session: call `Messenger.tend`.

        Raises:
            DeviceListStaleError: nothing is known of the user.
        """
        with self._store.write() as tx:
            return self._set_verified(tx, _known(tx, user_id), False)

    def is_verified(self, user_id: UserId) -> bool:
        """Say whether to show a user as verified: the numbers were compared, no list of devices was missed, and the
        newest one has not expired.
        """
        with self._store.read() as tx:
            contact = records.load_contact(tx, user_id)
            return contact is not None and contact.is_assured(self._sender().now)

    def lacks_lists(self, user_id: UserId) -> bool:
        """Say whether there are lists of a user's devices that this device has not seen, or the newest has expired."""
        with self._store.read() as tx:
            contact = records.load_contact(tx, user_id)
            return contact is not None and (contact.gap is not None or contact.is_expired(self._sender().now))

    def change(self, user_id: UserId) -> AccountKeyChange | None:
        """Return the change of a user's account key that waits for a decision, if there is one."""
        with self._store.read() as tx:
            contact = records.load_contact(tx, user_id)
            if contact is None or contact.changed is None:
                return None
            error = trust.changed_key_error(tx, contact)
            return AccountKeyChange(user_id, error.old_safety_number, error.new_safety_number)

    def accept_change(self, user_id: UserId, new_safety_number: str) -> None:
        """Pin the account key whose safety number this is. Sessions under the old one end; verification starts anew.

        `Messenger.reconsider` then reads what has waited.

        Raises:
            SafetyNumberMismatchError: no key waits, or another one than the person saw.
            InvalidSignatureError: the key that waits was closed: it has signed its last list.
            MalformedMessageError: not 60 digits.
            DeviceListStaleError: nothing is known of the user.
        """
        with self._store.write() as tx:
            changed = _known(tx, user_id).changed
            if changed is None:
                raise SafetyNumberMismatchError(user_id)
            key = changed.content.account_key
            if not _same_digits(new_safety_number, trust.safety_number_with(tx, user_id, key)):
                raise SafetyNumberMismatchError(user_id)
            trust.accept_changed_key(tx, user_id, key, self._sender().now)

    def decline_change(self, user_id: UserId) -> None:
        """Stay with the pinned account key; what waits under the other one goes on waiting, 30 days at most.

        Raises:
            DeviceListStaleError: nothing is known of the user.
        """
        with self._store.write() as tx:
            trust.decline_changed_key(tx, user_id, self._sender().now)

    def _set_verified(self, tx: Transaction, contact: Contact, verified: bool) -> bool:
        sender = self._sender()
        if trust.set_verified(tx, contact.user_id, verified, sender.now) == contact:
            return False
        return sending.tell_contact(tx, sender, contact.user_id)

    def decisions(self, user_id: UserId | None = None) -> list[TrustDecision]:
        """Return what was decided about a user, or about everybody, oldest first."""
        with self._store.read() as tx:
            return trust_records.decisions(tx, user_id)


def _known(tx: ReadTransaction, user_id: UserId) -> Contact:
    contact = records.load_contact(tx, user_id)
    if contact is None:
        raise DeviceListStaleError(user_id)
    return contact


def _their_side(contact: Contact) -> Side:
    return contact.user_id, contact.account_key


def _same_digits(text: str, number: str) -> bool:
    """Compare as people write: in groups, with spaces or line ends between."""
    digits = "".join(text.split())
    if len(digits) != _DIGITS or not (digits.isascii() and digits.isdigit()):
        raise MalformedMessageError(f"a safety number has {_DIGITS} digits")
    return hmac.compare_digest(digits.encode(), number.encode())
